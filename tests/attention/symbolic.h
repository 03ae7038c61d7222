#pragma once

#include "tests/attention/brute_mask.h"
#include "tests/attention/random_request.h"

#include <annulus/plan.h>

#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <vector>

namespace annulus::test {

/// What stands where a number would: which element of which tensor it is, and, for results, the
/// sum of the fingerprints of all contributions that went into it. Two sums agree only if the same
/// contributions were added, each as often.
struct Element {
  std::uint64_t id = 0;  ///< 0: never written
  std::uint64_t sum = 0;
  std::int64_t position = -1;
  int rounded = 0;  ///< how often it was rounded to the input dtype
};

/// Plays all ranks' plans over two consecutive calls, in a random order that waits allow, with
/// symbols for numbers. Every operand of every item is compared with what the item claims it to be,
/// and the caller's results with what the mask asks for.
class SymbolicRun {
 public:
  SymbolicRun(const Plan& plan, const std::vector<RankPlan>& ranks, std::uint64_t seed);

  /// What was found wrong, in words; the first few.
  std::vector<std::string> run();

  /// How often (query head, query, key) was computed in the first call.
  int times_computed(std::int64_t head, std::int64_t query, std::int64_t key) const {
    return counts_[static_cast<std::size_t>((head * mask_.seq() + query) * mask_.seq_kv() + key)];
  }
  const BruteMask& mask() const { return mask_; }

 private:
  /// An item of a rank in one of the two calls.
  struct Node {
    int call = 0;
    int rank = 0;
    std::int32_t item = 0;
  };
  using Signal = std::tuple<int, int, int, std::int32_t>;  ///< call, from, to, tag

  // symbolic.cpp: the order, the caller's tensors, the results.
  std::size_t index(const Node& node) const;
  void fill_inputs(int rank);
  void connect();
  void finish(const Node& node);
  void visit(const Node& node);
  void visit_transfer(const Node& node, const Transfer& t);
  void check_results(int rank);
  void check_result(int rank, const PlanSlot& slot, std::int32_t id);
  std::uint64_t expected_sum(Role role, std::int64_t batch, std::int64_t position,
                             std::int64_t head) const;

  // symbolic_items.cpp: what each item does.
  Element& at(int rank, std::int32_t slot, std::int64_t batch, std::int64_t token,
              std::int64_t head, std::int64_t dim);
  /// The same, by the running item: it must have said that it touches this, in this way.
  Element& touch(AccessMode mode, int rank, std::int32_t slot, std::int64_t batch,
                 std::int64_t token, std::int64_t head, std::int64_t dim);
  std::vector<Element> load(int rank, const Block& block);
  void store(int rank, const Block& block, const std::vector<Element>& values);
  void prepare(int rank, const Prepare& p);
  void row_sums(int rank, const Prepare& p);
  void reduce(int rank, const Reduce& r);
  void merge(int rank, const Merge& m);
  void attend(const Node& node, const Attend& a);
  void check_operand(const Node& node, const SlotView& view, int what, std::int64_t dims,
                     std::int64_t token, std::int64_t head, std::int64_t position);
  void attend_row(const Node& node, const Attend& a, std::int64_t token, std::int64_t query,
                  std::int64_t head);
  void finish_row(const Node& node, const Attend& a, std::int64_t token, std::int64_t query,
                  std::int64_t head);
  void attend_key(const Node& node, const Attend& a, const std::vector<std::int64_t>& queries,
                  std::int64_t token, std::int64_t key, std::int64_t kv_head);
  void add_to(Element& target, const Element& source, int rank, const char* what);
  void check_needed(const Node& node, const Transfer& t, const std::vector<Element>& values);
  void fault(int rank, const std::string& text);

  const Problem& problem() const { return plan_.request().problem; }
  std::int64_t group() const { return problem().heads / *problem().heads_kv; }
  const RankPlan& rank_plan(int rank) const { return ranks_[static_cast<std::size_t>(rank)]; }

  const Plan& plan_;
  const std::vector<RankPlan>& ranks_;
  BruteMask mask_;
  Random random_;
  bool eager_;                                            ///< a send completes without its receive
  std::vector<std::vector<std::vector<Element>>> slots_;  ///< by rank, slot
  std::vector<std::vector<std::int64_t>> row_positions_;  ///< by rank: of its row table
  std::vector<std::uint8_t> counts_;
  std::vector<std::size_t> first_;
  std::size_t nodes_ = 0;
  std::int32_t running_ = 0;  ///< item
  std::vector<int> missing_;
  std::vector<std::vector<Node>> dependents_;
  std::vector<Node> ready_;
  std::size_t finished_ = 0;
  std::map<Signal, std::vector<Element>> in_flight_;
  std::map<Signal, Node> posted_;
  std::vector<std::string> faults_;
};

/// Names of elements: a caller's tensor by its role, or the row sums.
constexpr int kDelta = 100;
constexpr std::uint64_t kZeroId = 1;
std::uint64_t id_of(int what, std::int64_t batch, std::int64_t position, std::int64_t head,
                    std::int64_t dim);
/// The fingerprint of one pair's part in a result.
std::uint64_t part_of(Role result, std::int64_t batch, std::int64_t head, std::int64_t query,
                      std::int64_t key);

}  // namespace annulus::test
