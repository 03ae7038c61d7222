#pragma once

#include "attention/plan/stages.h"
#include "attention/plan/ulysses_parts.h"

#include <cstdint>
#include <initializer_list>
#include <string_view>
#include <vector>

namespace annulus::attn {

/// K and V, or dK and dV: side by side in one slot, or in a slot each.
struct KeyPair {
  SlotView k, v;

  bool packed() const { return k.slot == v.slot; }
};

/// What ranks of one group give each other in slices of heads: one rank's part. Slots of all heads
/// are the caller's or have its shape; slots of the group hold its tokens and this rank's heads.
///
/// What transfers read or write in the caller's tensors lies as these do at both ends. What is
/// staged, or lands to be copied out, lies heads first, K beside V (RankBuilder::heads_first): rows
/// out of [tokens, heads, dim] are slow to fetch. Numbers of the caller lie heads first.
class HeadExchange {
 public:
  explicit HeadExchange(RankBuilder& b);

  int slices() const { return slices_of(b_); }
  int last() const { return slices() - 1; }

  /// A caller's tensor of rows, where transfers read it, and where its heads come together.
  struct Rows {
    Role role = Role::none;
    std::int32_t source = -1;
    std::int32_t target = -1;
  };
  Rows rows(Role role, std::string_view name, std::int32_t dim);
  /// The same of K and V.
  void keys();
  /// lse of the group, as exchange_statistics() and the lse of results take it.
  std::int32_t group_lse();
  std::int32_t group_delta();
  /// Results of the group.
  std::int32_t result_rows(std::string_view name, DType dtype, std::int32_t dim);
  KeyPair result_keys(DType dtype, bool rounded);

  /// Others' slices i of keys or rows are given, and the own one comes in.
  void give_keys(int i);
  void take_keys(int i);
  void give(int i, const Rows& rows);
  void take(int i, const Rows& rows);
  /// Own tokens of own heads, of all slices.
  void copy_own(std::initializer_list<const Rows*> rows);
  /// lse, and delta made of dout and out: own rows of all heads -> the group's of own heads.
  void exchange_statistics(std::int32_t lse, std::int32_t delta);

  /// Query heads, keys and operands of slice i.
  Attend attend(int i, std::int32_t q, std::int32_t lse) const;

  /// Results of slice i, in slots of the group, on their way to a slot of all heads.
  void give_rows(std::int32_t slot, int i);
  void take_rows(std::int32_t landing, int i);
  std::int32_t rows_landing(Role role);
  /// What this rank computed of its own tokens; what others did.
  void copy_own_rows_home(std::int32_t slot, Role role);
  void copy_rows_home(std::int32_t landing, Role role);

  /// The same of dK and dV.
  KeyPair keys_landing();
  void give_keys_home(const KeyPair& keys, int i);
  void take_keys_home(const KeyPair& landing, int i);
  void copy_own_keys_home(const KeyPair& keys);
  void copy_keys_home(const KeyPair& landing);
  /// Slice i of own heads, fp32 to the input dtype.
  void convert_keys(const KeyPair& from, const KeyPair& to, int i);

  /// The same of lse, all slices together.
  std::vector<std::int32_t> lse_landing();
  void give_lse(std::int32_t slot);
  void take_lse(const std::vector<std::int32_t>& landing);
  void copy_lse_home(std::int32_t slot, const std::vector<std::int32_t>& landing);

 private:
  std::int32_t numbers(std::string_view name);
  std::int32_t group_rows(std::string_view name, DType dtype, std::int32_t dim, bool staged);
  KeyPair group_keys(std::string_view both, std::string_view k, std::string_view v, DType dtype,
                     bool staged);
  KeyPair packed(std::string_view name, DType dtype, std::int64_t tokens, HeadRange heads);
  KeyPair packed_home();
  KeyPair gradients();  ///< the caller's
  void stage(const Rows& rows, int i);
  Block lse_source(int member);
  Block k_of(const KeyPair& keys) const;
  Block v_of(const KeyPair& keys) const;
  /// What is one transfer: both, or each.
  std::vector<Block> pieces(const KeyPair& keys) const;
  HeadRange before_last(int member, bool keys) const;
  template <typename Fn>
  void for_landed(bool keys, Fn fn);
  std::int32_t part(std::string_view name, int member);

  RankBuilder& b_;
  bool stages_sources_;
  bool stages_results_;
  int me_;
  std::vector<int> peers_;
  KeyPair sources_;  ///< own tokens, all heads
  KeyPair keys_;     ///< the group's tokens, own heads
};

}  // namespace annulus::attn
