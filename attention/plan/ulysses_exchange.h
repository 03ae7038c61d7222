#pragma once

#include "attention/plan/stages.h"
#include "attention/plan/ulysses_parts.h"

#include <cstdint>
#include <initializer_list>
#include <string_view>
#include <vector>

namespace annulus::attn {

/// What ranks of one group give each other in slices of heads: one rank's part. Slots of all heads
/// are the caller's or have its shape; slots of the group hold its tokens and this rank's heads.
/// Where transfers may not touch the caller's tensors, all but those of one number a row lie heads
/// first (RankBuilder::heads_first): rows out of [tokens, heads, dim] are slow to fetch.
class HeadExchange {
 public:
  explicit HeadExchange(RankBuilder& b);

  int slices() const { return slices_of(b_); }
  int last() const { return slices() - 1; }
  /// Transfers may not touch the caller's tensors.
  bool staged() const { return staged_; }

  /// A caller's tensor of rows, where transfers read it, and where its heads come together.
  struct Rows {
    Role role = Role::none;
    std::int32_t source = -1;
    std::int32_t target = -1;
  };
  Rows rows(Role role, std::string_view name, std::int32_t dim);
  /// The same of K and V, side by side in one slot of the group.
  std::int32_t keys();
  std::int32_t group_rows(std::string_view name, DType dtype, std::int32_t dim);
  std::int32_t group_numbers(std::string_view name);
  std::int32_t group_keys(std::string_view name, DType dtype);

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

  /// The same of dK|dV. Unless staged they land in the caller's tensors: -1.
  std::int32_t keys_landing();
  void give_keys_home(std::int32_t slot, int i);
  void take_keys_home(std::int32_t landing, int i);
  void copy_own_keys_home(std::int32_t slot);
  void copy_keys_home(std::int32_t landing);

  /// The same of lse, all slices together.
  std::vector<std::int32_t> lse_landing();
  void give_lse(std::int32_t slot);
  void take_lse(const std::vector<std::int32_t>& landing);
  void copy_lse_home(std::int32_t slot, const std::vector<std::int32_t>& landing);

 private:
  void stage(const Rows& rows, int i);
  Block keys_part(std::int32_t slot, Role role) const;
  HeadRange before_last(int member, bool keys) const;
  template <typename Fn>
  void for_landed(bool keys, Fn fn);
  std::int32_t part(std::string_view name, int member);

  RankBuilder& b_;
  bool staged_;
  int me_;
  std::vector<int> peers_;
  std::int32_t packed_ = -1;  ///< staged: K|V of own tokens, all heads
  std::int32_t kv_ = -1;
};

}  // namespace annulus::attn
