#pragma once

#include "comm/device/device_link.h"

#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

namespace annulus::comm::composite {

/// One plan's transfers through two links that know all of them by the same index: ranks that can
/// address each other by the first, the others by the second.
class CompositeLink final : public DeviceLink {
 public:
  /// `near`: by transfer, whether it goes through `first`. Only that one may send by flags.
  CompositeLink(std::unique_ptr<DeviceLink> first, std::unique_ptr<DeviceLink> second,
                std::vector<bool> near)
      : first_(std::move(first)), second_(std::move(second)), near_(std::move(near)) {}

  const char* name() const override { return "composite"; }
  std::int32_t group_end(std::int32_t transfer) const override {
    return of(transfer).group_end(transfer);
  }
  bool by_flag(std::int32_t transfer) const override { return of(transfer).by_flag(transfer); }
  bool beside_kernels(std::int32_t transfer) const override {
    return of(transfer).beside_kernels(transfer);
  }
  std::int32_t opener(std::int32_t transfer) const override {
    return of(transfer).opener(transfer);
  }
  std::int32_t closer(std::int32_t transfer) const override {
    return of(transfer).closer(transfer);
  }
  void set_own(std::int32_t transfer, const Region& own) override {
    (near_[static_cast<std::size_t>(transfer)] ? *first_ : *second_).set_own(transfer, own);
  }
  void start(std::int32_t transfer, const LinkStream& on) const override {
    // Held back until a transfer of the other link is enqueued.
    if (!near_[static_cast<std::size_t>(transfer)]) first_->flush();
    of(transfer).start(transfer, on);
  }
  void raise(std::span<const std::int32_t> flags, const LinkStream& on) const override {
    first_->raise(flags, on);
  }
  void await_over(std::span<const std::int32_t> flags, const LinkStream& on) const override {
    first_->await_over(flags, on);
  }
  // Only transfers of the first link are beside kernels.
  void await_sources(std::span<const std::int32_t> all, const LinkStream& on) const override {
    first_->await_sources(all, on);
  }
  void move(std::int32_t transfer, const LinkStream& on) const override {
    first_->move(transfer, on);
  }
  void release(std::span<const std::int32_t> all, const LinkStream& on) const override {
    first_->release(all, on);
  }
  void write(std::uint32_t* word, std::uint32_t value, const LinkStream& on) const override {
    first_->write(word, value, on);
  }
  void await_count(std::uint32_t* word, std::uint32_t count, const LinkStream& on) const override {
    first_->await_count(word, count, on);
  }
  void flush() const override { first_->flush(); }
  Signal awaited_signal(std::int32_t transfer) const override {
    return of(transfer).awaited_signal(transfer);
  }

 private:
  const DeviceLink& of(std::int32_t transfer) const {
    return near_[static_cast<std::size_t>(transfer)] ? *first_ : *second_;
  }

  std::unique_ptr<DeviceLink> first_;
  std::unique_ptr<DeviceLink> second_;
  std::vector<bool> near_;
};

}  // namespace annulus::comm::composite
