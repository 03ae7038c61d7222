// Attention forward for Hopper (sm_90a), after FlashAttention-3 (Shah et al. 2024). One block an SM
// stays for the whole launch and draws query tiles (128 rows of one head) until none is left; for
// each it streams the keys of its tile list, up to 160 at a time, and keeps an online softmax. The
// figures here are those of head_dim 128; tuning.h says what is otherwise, and what may be.
//
//   warps      warpgroup 0: the loader, one thread of it (loader.cuh): draws items, waits for the
//              flags of segments, has the copy engine (TMA) bring K and V; three warps that bring
//              Q and carry output away (porter.cuh). 24 registers a thread.
//              warpgroups 1, 2: consumers of 64 rows each, 240 registers. S = Q K^T from shared
//              memory, softmax in registers, O += P V with P from registers.
//   maxima     nearly always stay as they are after an item's first step: steps without masks are
//              exponentiated under those of before, and scores computed again where that was wrong
//   overlap    within a warpgroup: products of S for step i and of O for step i - 1 are started
//              together, softmax of i runs under the latter. From item to item: O of the last step
//              and S of the first together; output leaves under S of the second. Between
//              warpgroups: where the tuning says so they take turns in starting products, so that
//              one computes while the other does its softmax; else they fall into step.
//   shared     Q [2 items][2 groups][64 rows], K [stages][160 keys], V [stages][160 keys], all in
//              blocks of 64 elements with the 128-byte swizzle (layout.cuh): 64, 80 and 80 KB, 2
//              stages. Output leaves through Q. Wide heads have room for one item's Q: the next
//              one's comes when the last scores are there, and output leaves from registers.
//   barriers   full and empty mbarriers for K, V and items (shared.cuh); named ones for turns and
//              for a warpgroup's own threads
//   split      an item may be a part of a query tile's steps (split.h), whose output and LSE are a
//              state in the workspace: blocks know only that it has a first step and a place
//   tails      a tile of fewer keys is copied as a whole box: tokens behind it are read (params.h:
//              key_tokens), their scores become -inf, their values are overwritten with zeroes
//   limits     f16, bf16; head_dim = head_dim_v = 64, 96, 128, 192, 256, or 192 and 128; 16-byte
//              aligned rows; tiles of at most tile_rows_of rows and any number of keys;
//              softmax_scale > 0; key_tokens known (setup.h)
#pragma once

#include "attention/kernels/sm90/items.cuh"
#include "attention/kernels/sm90/next_step.cuh"
#include "attention/kernels/sm90/rows.cuh"
#include "attention/kernels/sm90/wgmma.cuh"

namespace annulus::attn::sm90 {

/// One thread of a consumer warpgroup.
template <typename T, int kDim, int kDimV, Tuning kTuning, bool kCapped>
struct Consumer {
  using Memory = Shared<kDim, kDimV, kTuning>;
  using Turns = ProductTurns<kTuning>;
  static constexpr int kTileKeys = kTuning.tile_keys;
  static constexpr int kScores = kTileKeys / 2;
  static constexpr int kStages = Memory::kStages;
  /// Queries of the next item have a place of their own.
  static constexpr bool kAhead = Memory::kQueries > 1;

  const cuda::Geometry& g;
  const ForwardParams& p;
  Memory& shared;
  Lane at;
  int group;     ///< at.group(), known to be one for the whole warp
  float scale;   ///< what takes a score (softcap applied) to exponents of 2
  int step = 0;  ///< whose K is next

  float o[kDimV / 2], s[kScores];
  std::uint32_t probabilities[kScores / 2];
  float keep[2];
  bool grew;  ///< output so far is to be rescaled by `keep`
  RowSums sums;
  NextStep<Memory> next;
  ItemsOf<Memory> items{shared};
  bool cut = false;  ///< the step before is masked: it may have fewer keys than V has rows

  __device__ __forceinline__ Consumer(const cuda::Geometry& geometry, const ForwardParams& params,
                                      Memory& memory)
      : g(geometry),
        p(params),
        shared(memory),
        at(static_cast<int>(threadIdx.x)),
        group(of_warp(at.group())),
        scale(kCapped ? cuda::kLog2E : static_cast<float>(geometry.softmax_scale) * cuda::kLog2E) {}

  __device__ __forceinline__ void reach(ForwardPhase phase) const {
    mark<kTuning.traced>(shared.trace, at.thread() + kGroupThreads * at.group(), phase);
  }

  /// A warp is done with what `barrier` guards.
  __device__ __forceinline__ void release(std::uint64_t* barrier) const {
    if (at.lane() == 0) arrive(barrier);
  }

  __device__ __forceinline__ void start_scores(Matrix a) {
    if (kDim > 192) forget(a.low);  // else its steps are all found before the loop, and spilled
    fence_products();
    const Matrix b = along_rows(shared_address(shared.k[Place<kStages>(step).index]));
#pragma unroll
    for (int k = 0; k < kDim / 16; ++k) {
      multiply(s, a.at(step_along_rows(k, kGroupRows)), b.at(step_along_rows(k, kTileKeys)), k > 0,
               T());
    }
    commit_products();
  }

  /// P V of step `of`; the first of an item that resumes nothing makes output anew.
  __device__ __forceinline__ void start_values(int of, bool add) {
    const Place<kStages> place(of);
    wait(&shared.v_full[place.index], place.full);
    if (cut) {
      const int real = shared.steps[of % Memory::kSteps].keys;
      if (real < kTileKeys) clear_values<kTileKeys, kDimV>(at, shared.v[place.index], real);
    }
    fence_products();
    const Matrix b = across_rows(shared_address(shared.v[place.index]), kTileKeys);
#pragma unroll
    for (int k = 0; k < kTileKeys / 16; ++k) {
      multiply_add(o, probabilities + 4 * k, b.at(step_across_rows(k)), k > 0 || add, T());
    }
    commit_products();
  }

  /// The last P V of item n.
  __device__ __forceinline__ void start_last_values(int n) {
    start_values(step - 1, p.resume || items.at(n).tile.steps > 1);
  }

  /// What this lane knows of a masked step: read while its scores are computed.
  __device__ __forceinline__ Seen look(const Item& item) const {
    return seen_by_lane(g, item, shared.steps[step % Memory::kSteps], at.warp_row(), at.lane());
  }

  /// What of the step is seen, and its maxima. Rows that do not see a whole step have no slack: of
  /// few keys the largest probability is 1 then, and not rounded, whatever order they come in.
  __device__ __forceinline__ void find_maxima(bool is_masked, const Seen& seen, float slack) {
    if constexpr (kCapped) cap_scores(g, s);
    float most[2] = {slack, slack};
    if (is_masked) {
      bool some[2];
      mask_scores(seen, at.lane(), s, some);
#pragma unroll
      for (int h = 0; h < 2; ++h) most[h] = some[h] ? 0.0F : slack;
    }
    grew = raise_maxima(s, sums, scale, most, keep);
  }

  __device__ __forceinline__ void rescale() {
    if (!grew) return;
#pragma unroll
    for (int j = 0; j < kDimV / 8; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) o[4 * j + i] *= keep[i / 2];
    }
  }

  /// No copy may be under way when the block ends: takes back V of the step before.
  __device__ __forceinline__ void take_back_values() const {
    if (step == 0) return;
    const Place<kStages> place(step - 1);
    wait(&shared.v_full[place.index], place.full);
  }

  /// First step of an item, beside the last P V of the item before, whose sums are finished
  /// meanwhile. False where the launch was aborted.
  template <bool kFirst>
  __device__ __forceinline__ bool enter(int n) {
    const Item& item = items.at(n);
    const bool here = items.are_queries_there(n);
    // Without turns before all waits: it needs nothing of this item.
    if constexpr (!kFirst && !kTuning.turns) start_last_values(n - 1);
    if (!here) items.await_queries(n);
    reach(ForwardPhase::queries);
    next.await(shared, step);
    if (next.aborted()) {
      take_back_values();
      if constexpr (!kFirst && !kTuning.turns) wait_products<0>(o);
      give_up(kFirst ? 0 : n - 1);
      return false;
    }
    reach(ForwardPhase::keys);
    const Matrix rows = along_rows(shared_address(items.queries(n, group)));
    Turns::await(group);
    if constexpr (!kFirst && kTuning.turns) start_last_values(n - 1);
    start_scores(rows);
    Turns::pass(group);
    reach(ForwardPhase::started);
    if constexpr (!kFirst) {
      finish_rows(n - 1);
      wait_products<1>(o);
      release(&shared.v_empty[Place<kStages>(step - 1).index]);
      leave(n - 1);
      reach(ForwardPhase::output);
    }
    cut = next.is_masked();
    const Seen seen = cut ? look(item) : Seen{0, 0};
    wait_products<0>(s);
    reach(ForwardPhase::scores);
    release(&shared.k_empty[Place<kStages>(step).index]);
    release_queries(item.tile.steps);
    begin_sums(g, p, item, Lane(thread_again()), scale, sums);
    // No slack: there is no output to rescale, and behind a state the largest probability is 1 and
    // not rounded, as it is where nothing came before.
    find_maxima(cut, seen, 0.0F);
    next.look_ahead(shared, step + 1);
    set_aside(s, o, probabilities);
    ++step;
    finish_before(__int_as_float(step));
    return true;
  }

  /// An item's first scores, whose maxima are known, to probabilities, and its output to what it
  /// begins with.
  __device__ __forceinline__ void take_first_step(const Item& item) {
    float first[kScores];
    bring_back(o, probabilities, first);
    exponentiate_packed<T>(first, sums, scale, keep, 0, probabilities);
    exponentiate_packed<T>(first, sums, scale, keep, 1, probabilities);
    drop(o);
    reach(ForwardPhase::entered);
    if (p.resume) {
      wait_products<0>(s);  // else its registers may not be written
      begin_output<kDimV>(g, p, item, Lane(thread_again()), scale, sums, o);
    }
  }

  /// Waits for K of the item's next step, and starts its scores. False where the launch was
  /// aborted; `waiting`: the item whose output porters wait for.
  __device__ __forceinline__ bool go_on(const Matrix& rows, int waiting) {
    next.await(shared, step);
    if (next.aborted()) {
      take_back_values();
      give_up(waiting);
      return false;
    }
    Turns::await(group);
    start_scores(rows);
    return true;
  }

  /// From scores to probabilities, while P V of the step before is computed. `left`: steps of the
  /// item that had none before.
  __device__ __forceinline__ void take_step(const Item& item, int left, bool is_masked) {
    const Seen seen = is_masked ? look(item) : Seen{0, 0};
    wait_products<1>(s);
    release(&shared.k_empty[Place<kStages>(step).index]);
    release_queries(left);
    find_maxima(is_masked, seen, static_cast<float>(kTuning.slack));
    exponentiate(s, sums, scale, keep, 0);
    // By now P V is nearly done; packing and rescaling fit beside the other exponentials.
    finish_before(sums.sum[0]);
    wait_products<0>(o);
    release(&shared.v_empty[Place<kStages>(step - 1).index]);
    cut = is_masked;
    next.look_ahead(shared, step + 1);
    exponentiate(s, sums, scale, keep, 1);
    rescale();
    pack_scores<T>(s, probabilities);
    ++step;
    reach(ForwardPhase::step);
  }

  /// Late maxima: may all warps of the group keep theirs, as this thread may where its `stays`?
  /// They decide together, for they compute scores together. The word is that of the step's K:
  /// whoever writes it next has K that came after all had read it and let go of this one.
  __device__ __forceinline__ bool keep_maxima(bool stays) const {
    volatile std::uint32_t& grown = shared.grown[group][Place<kStages>(step).index];
    if (__any_sync(0xffffffffU, !stays) != 0 && at.lane() == 0) grown = 1;
    sync_group(at);
    return __any_sync(0xffffffffU, grown != 0) == 0;
  }

  /// Late maxima that have grown: from scores computed once more.
  __device__ __forceinline__ void take_again(const Matrix& rows) {
    sync_group(at);  // all have read the word
    if (at.thread() == 0) {
      *static_cast<volatile std::uint32_t*>(&shared.grown[group][Place<kStages>(step).index]) = 0;
    }
    start_scores(rows);
    wait_products<0>(s);
    find_maxima(false, Seen{0, 0}, static_cast<float>(kTuning.slack));
    exponentiate(s, sums, scale, keep, 0);
    exponentiate(s, sums, scale, keep, 1);
    rescale();
    pack_scores<T>(s, probabilities);
  }

  /// take_step where no mask is, by the maxima of before: nearly always they stay. K is kept until
  /// that is known.
  __device__ __forceinline__ void take_whole_step(const Matrix& rows) {
    constexpr float kMost = 0.98F * static_cast<float>(1 << kTuning.slack);  // of exp2's error
    wait_products<1>(s);
    const float first = exponentiate_early(s, sums, scale, 0);
    finish_before(first);
    wait_products<0>(o);
    release(&shared.v_empty[Place<kStages>(step - 1).index]);
    cut = false;
    next.look_ahead(shared, step + 1);
    const float second = exponentiate_early(s, sums, scale, 1);
    pack_scores<T>(s, probabilities);
    if (keep_maxima(first <= kMost && second <= kMost)) {  // not NaN
      sums.sum[0] = __fadd_rn(sums.sum[0], first);
      sums.sum[1] = __fadd_rn(sums.sum[1], second);
    } else {
      take_again(rows);
    }
    release(&shared.k_empty[Place<kStages>(step).index]);
    ++step;
    reach(ForwardPhase::step);
  }

  /// The steps of an item from its first softmax on, which runs while scores of the second are
  /// computed, but for the last P V. False where the launch was aborted.
  __device__ __forceinline__ bool stream_keys(int n) {
    const Item& item = items.at(n);
    const Matrix rows = along_rows(shared_address(items.queries(n, group)));
    int left = item.tile.steps - 1;
    if (left == 0) {
      take_first_step(item);
      return true;
    }
    for (bool second = true; left > 0; --left, second = false) {
      if (!go_on(rows, n)) return false;
      if (second) {
        Turns::pass(group);
        take_first_step(item);
      }
      start_values(step - 1, !second || p.resume);
      if (!second) Turns::pass(group);
      const bool is_masked = next.is_masked();
      // Where the next queries wait for the last scores, these are not kept.
      if (is_masked || (kTuning.late_maxima && !kAhead && left == 1)) {
        take_step(item, left, true);
      } else if constexpr (kTuning.late_maxima) {
        take_whole_step(rows);
      } else {
        take_step(item, left, false);
      }
    }
    return true;
  }

  /// The launch was aborted: porters, who wait for item n's output, are to leave too.
  __device__ __forceinline__ void give_up(int n) const {
    *static_cast<volatile std::uint32_t*>(&shared.aborted) = 1;
    __syncwarp();
    release(&shared.out_full[n % Memory::kOuts]);
    release_queries(1);
  }

  /// Where there is one place for queries: the next item's may come once this warp has its last
  /// scores. `left`: steps of the item that had none before.
  __device__ __forceinline__ void release_queries(int left) const {
    if (!kAhead && left == 1) release(&shared.q_empty);
  }

  /// Sums of item n to LSE and to what its output is to be multiplied by.
  __device__ __forceinline__ void finish_rows(int n) const {
    finish_sums(Lane(thread_again()), scale, sums, shared.lse[n % Memory::kOuts], shared.factors);
    __syncwarp();
  }

  /// Output of item n, which is done, as its queries are: nobody reads them any more.
  __device__ __forceinline__ void leave(int n) {
    const Item& item = items.at(n);
    const Lane here(thread_again());
    if (kAhead) sync_group(here);  // all warps have read the queries that output is staged over
    const RowFactors factors{{shared.factors[here.row(0)], shared.factors[here.row(1)]}};
    if (p.finish) {
      if constexpr (kAhead) {
        stage_out<T, kDimV>(here, shared_address(items.queries(n, group)), factors, o);
      } else {
        store_out_at_once<T, kDimV>(g, p, item, here, factors, o);
      }
    } else {
      store_state<kDimV>(g, p, item, here, factors, o);
    }
    __syncwarp();
    release(&shared.out_full[n % Memory::kOuts]);
    release(&shared.item_empty[n % Memory::kItems]);
  }

  __device__ __forceinline__ void leave_last(int n) {
    start_last_values(n);
    finish_rows(n);
    wait_products<0>(o);
    reach(ForwardPhase::values);
    release(&shared.v_empty[Place<kStages>(step - 1).index]);
    leave(n);
    reach(ForwardPhase::ended);
  }

  __device__ __forceinline__ void run() {
    if (group + 1 == kTuning.groups) Turns::pass(group);  // group 0 begins
    const bool some = items.is_there(0);
    drop(o);
    reach(ForwardPhase::begun);
    if (!some) return;
    bool goes_on = enter<true>(0);
    for (int n = 0; goes_on; ++n) {
      if (!stream_keys(n)) return;
      if (!items.is_there(n + 1)) return leave_last(n);
      goes_on = enter<false>(n + 1);
    }
  }
};

}  // namespace annulus::attn::sm90
