// The C interface to plans and to the merge of partial results.
#include "runtime/engine/c_abi.h"

using annulus::InvalidArgument;
using namespace annulus::c_abi;

extern "C" {

annulus_status annulus_plan_make(const annulus_problem* problem, const annulus_layout* layout,
                                 int32_t algorithm, int32_t ring, int32_t ulysses, int32_t pass,
                                 annulus_plan** plan, annulus_error* error) {
  return made(plan, error, [&] {
    return annulus::make_plan(problem_of(problem), layout_of(layout), algorithm_of(algorithm),
                              {.ring = ring, .ulysses = ulysses}, pass_of(pass));
  });
}

annulus_status annulus_attention_plan(const annulus_attention* attention, int32_t pass,
                                      annulus_plan** plan, annulus_error* error) {
  return made(plan, error,
              [&] { return need(attention, "attention").attention.plan(pass_of(pass)); });
}

void annulus_plan_free(annulus_plan* plan) { delete plan; }

int32_t annulus_plan_world(const annulus_plan* plan) {
  return plan == nullptr ? -1 : plan->plan.world();
}

uint32_t annulus_plan_hash(const annulus_plan* plan) {
  return plan == nullptr ? 0 : plan->plan.hash();
}

annulus_status annulus_plan_totals_of(const annulus_plan* plan, int32_t rank,
                                      annulus_plan_totals* totals, annulus_error* error) {
  return guarded(error, [&] {
    const annulus::Plan& given = need(plan, "plan").plan;
    if (rank < 0 || rank >= given.world()) {
      throw InvalidArgument("rank " + std::to_string(rank) + " is not of the plan's " +
                            std::to_string(given.world()));
    }
    const annulus::PlanTotals t = given.totals(rank);
    give(annulus_plan_totals{.size = 0,
                             .item_count = t.item_count,
                             .transfer_count = t.transfer_count,
                             .masked_pairs = t.masked_pairs,
                             .flops = t.flops,
                             .bytes_sent = t.bytes_sent,
                             .bytes_received = t.bytes_received,
                             .arena_bytes = t.arena_bytes,
                             .caller_bytes = t.caller_bytes},
         totals, "totals");
  });
}

annulus_status annulus_plan_check(const annulus_plan* plan, char** text, annulus_error* error) {
  return told(text, error, [&] {
    std::string lines;
    for (const std::string& fault : annulus::check_plan(need(plan, "plan").plan)) {
      lines += fault + "\n";
    }
    return lines;
  });
}

annulus_status annulus_merge(float* into_o, float* into_lse, const float* other_o,
                             const float* other_lse, int64_t rows, int64_t dim,
                             annulus_error* error) {
  return guarded(error, [&] {
    if (rows < 0 || dim < 0) throw InvalidArgument("rows or dim is negative");
    if (rows > 0) {
      need(into_lse, "into_lse");
      need(other_lse, "other_lse");
      if (dim > 0) {
        need(into_o, "into_o");
        need(other_o, "other_o");
      }
    }
    // The other state is read only: StateView has no constant twin.
    annulus::merge({.o = into_o, .lse = into_lse, .rows = rows, .dim = dim},
                   {.o = const_cast<float*>(other_o),
                    .lse = const_cast<float*>(other_lse),
                    .rows = rows,
                    .dim = dim});
  });
}

}  // extern "C"
