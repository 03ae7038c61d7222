#pragma once

#include "comm/transport.h"

#include <annulus/error.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace annulus::comm {

/// What a transport keeps for each ticket. Numbers are used again, so that they never run out.
template <class T>
class Slots {
 public:
  Transport::Ticket add(T value) {
    if (free_.empty()) {
      slots_.emplace_back(std::move(value));
      return static_cast<Transport::Ticket>(slots_.size() - 1);
    }
    const Transport::Ticket ticket = free_.back();
    free_.pop_back();
    slots_[static_cast<std::size_t>(ticket)].emplace(std::move(value));
    return ticket;
  }

  T& at(Transport::Ticket ticket) {
    const auto index = static_cast<std::size_t>(ticket);
    if (ticket < 0 || index >= slots_.size() || !slots_[index]) {
      throw InvalidArgument("no transfer in flight has ticket " + std::to_string(ticket));
    }
    return *slots_[index];
  }

  void remove(Transport::Ticket ticket) {
    slots_[static_cast<std::size_t>(ticket)].reset();
    free_.push_back(ticket);
  }

  template <class F>
  void for_each(F&& visit) {
    for (auto& slot : slots_) {
      if (slot) visit(*slot);
    }
  }

  bool empty() const { return free_.size() == slots_.size(); }
  void clear() {
    slots_.clear();
    free_.clear();
  }

 private:
  std::vector<std::optional<T>> slots_;
  std::vector<Transport::Ticket> free_;
};

}  // namespace annulus::comm
