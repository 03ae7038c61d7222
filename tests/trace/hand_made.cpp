#include "tests/trace/hand_made.h"

namespace annulus::test {

HandMade& HandMade::computes() {
  plan_.prepares.push_back({});
  Item item;
  item.payload = static_cast<std::int32_t>(plan_.prepares.size()) - 1;
  plan_.items.push_back(item);
  return *this;
}

HandMade& HandMade::transfer(bool sends, int peer, std::int32_t tag) {
  Transfer t;
  t.sends = sends;
  t.peer = peer;
  t.tag = tag;
  t.bytes = 100 + tag;
  plan_.transfers.push_back(t);
  Item item;
  item.kind = ItemKind::transfer;
  item.payload = static_cast<std::int32_t>(plan_.transfers.size()) - 1;
  plan_.items.push_back(item);
  return *this;
}

CallTrace call(double begin_s, double end_s, std::initializer_list<Times> items) {
  CallTrace trace{Pass::forward, begin_s, end_s, 0, false, {}};
  for (const Times& t : items) {
    const bool by_flag = t.await_s >= 0;
    trace.samples.push_back({static_cast<std::int32_t>(trace.samples.size()), by_flag, t.begin_s,
                             by_flag ? t.await_s : t.begin_s, t.end_s});
  }
  return trace;
}

}  // namespace annulus::test
