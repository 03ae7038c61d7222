#include "tests/emulate/machine.h"

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace annulus::emulate {

namespace {

constexpr std::size_t kStack = 128 * 1024;

}  // namespace

/// Made by makecontext, entered by setcontext, and from then on left and gone on with by _setjmp
/// and _longjmp, which are no system calls (swapcontext makes two each time, a third of all tests'
/// time).
struct Machine::Fiber {
  ucontext_t context{};
  jmp_buf place{};     ///< where it was left
  bool begun = false;  ///< else `context` is where it begins
  std::unique_ptr<std::byte[]> stack = std::make_unique_for_overwrite<std::byte[]>(kStack);
  bool done = false;
  bool resting = false;
  const char* what = "";
  std::int64_t detail = 0;  ///< with `what`
  bool (*ready)(void*) = nullptr;
  void* from = nullptr;
};

Machine::Machine(Options options)
    : options_(std::move(options)),
      random_(options_.seed),
      shared_(static_cast<std::byte*>(std::aligned_alloc(1024, kSharedBytes)), std::free),
      host_(std::make_unique<Fiber>()) {
  current_ = this;
}

Machine::~Machine() { current_ = nullptr; }

void Machine::none_runs() { throw Misuse("no machine runs"); }

void Machine::misuse(const std::string& what) const {
  throw Misuse("thread " + std::to_string(running_) + " of block " + std::to_string(block_.x) +
               ": " + what);
}

void Machine::enter(unsigned high, unsigned low) {
  auto* machine = reinterpret_cast<Machine*>((static_cast<std::uintptr_t>(high) << 32) | low);
  try {
    (*machine->body_)();
  } catch (...) {
    machine->failure_ = std::current_exception();
  }
  machine->fibers_[static_cast<std::size_t>(machine->running_)]->done = true;
  _longjmp(machine->host_->place, 1);
}

/// Until the fiber suspends or ends.
void Machine::go_on(Fiber& fiber) {
  if (_setjmp(host_->place) != 0) return;
  if (fiber.begun) _longjmp(fiber.place, 1);
  fiber.begun = true;
  setcontext(&fiber.context);
}

void Machine::run(int threads, Index block, Index grid, const std::function<void()>& body) {
  const auto count = static_cast<std::size_t>(threads);
  block_ = block;
  grid_ = grid;
  body_ = &body;
  named_.clear();
  counted_.clear();
  pending_.clear();
  warps_.assign((count + 31) / 32, {});
  writers_.assign(kSharedBytes / 16, -1);
  unfenced_.assign(count, {});
  std::memset(shared_.get(), 0xff, kSharedBytes);  // NaN: contents are undefined
  fibers_.resize(std::max(fibers_.size(), count));
  for (std::size_t i = 0; i < count; ++i) {
    if (!fibers_[i]) fibers_[i] = std::make_unique<Fiber>();
    Fiber& fiber = *fibers_[i];
    fiber.done = fiber.resting = fiber.begun = false;
    fiber.ready = nullptr;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = kStack;
    fiber.context.uc_link = nullptr;  // `enter` does not return
    const auto self = reinterpret_cast<std::uintptr_t>(this);
    makecontext(&fiber.context, reinterpret_cast<void (*)()>(&Machine::enter), 2,
                static_cast<unsigned>(self >> 32), static_cast<unsigned>(self));
  }
  fibers_.resize(count);
  schedule();
  if (!pending_.empty()) throw Misuse("a block ended while a copy to its memory was under way");
}

/// One look at every thread, in some order. Now and then a warpgroup is left out, as if slow; now
/// and then for long, until the others wait for it.
bool Machine::pass() {
  static constexpr std::array<std::size_t, 5> kSteps{1, 5, 7, 11, 13};
  const std::size_t count = fibers_.size();
  const std::size_t step = count % 32 == 0 ? kSteps[random_() % kSteps.size()] : 1;
  std::size_t i = random_() % count;
  if (slow_passes_ > 0) {
    --slow_passes_;
  } else {
    slow_ = random_() % 8;
    if (random_() % 64 == 0) slow_passes_ = random_() % 256;
  }
  ++passes_;
  bool moved = false;
  for (std::size_t n = 0; n < count; ++n, i = (i + step) % count) {
    Fiber& fiber = *fibers_[i];
    if (fiber.done || fiber.resting || i / 128 == slow_) continue;
    if (fiber.ready != nullptr && !fiber.ready(fiber.from)) continue;
    fiber.ready = nullptr;
    running_ = static_cast<int>(i);
    go_on(fiber);
    running_ = -1;
    if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
    moved = true;
  }
  if (!moved) slow_passes_ = 0;
  return moved;
}

/// Something that was asked for happens, or the world outside does something.
bool Machine::advance() {
  if (!pending_.empty()) {
    const std::size_t i = random_() % pending_.size();
    const std::function<void()> work = std::move(pending_[i]);
    pending_.erase(pending_.begin() + static_cast<std::ptrdiff_t>(i));
    work();
    return true;
  }
  if (next_late_ == options_.late.size()) return false;
  options_.late[next_late_++]();
  for (const auto& fiber : fibers_) fiber->resting = false;
  return true;
}

void Machine::schedule() {
  int idle = 0;  // nobody is slow, and nothing waits for its pass, so long
  while (!std::all_of(fibers_.begin(), fibers_.end(), [](const auto& f) { return f->done; })) {
    bool moved = pass();
    if (!pending_.empty() && random_() % 4 == 0) moved = advance();
    idle = moved ? 0 : idle + 1;
    if (idle <= 26) continue;
    if (!advance()) throw Misuse("nobody can go on: " + waiting());
    idle = 18;  // whom that woke may be slow for some passes
  }
}

std::string Machine::waiting() const {
  std::map<std::string, std::vector<std::size_t>> whom;
  for (std::size_t i = 0; i < fibers_.size(); ++i) {
    const Fiber& fiber = *fibers_[i];
    if (!fiber.done) whom[fiber.what + std::to_string(fiber.detail)].push_back(i);
  }
  std::string text;
  for (const auto& [what, threads] : whom) {
    text += (text.empty() ? "" : "; ") + std::to_string(threads.size()) + " threads (" +
            std::to_string(threads.front()) + " to " + std::to_string(threads.back()) +
            ") wait for " + what;
  }
  return text;
}

void Machine::suspend(const char* what, std::int64_t detail, bool (*ready)(void*), void* from) {
  Fiber& fiber = *fibers_[static_cast<std::size_t>(running_)];
  fiber.what = what;
  fiber.detail = detail;
  fiber.ready = ready;
  fiber.from = from;
  if (_setjmp(fiber.place) == 0) _longjmp(host_->place, 1);
}

void Machine::rest() {
  fibers_[static_cast<std::size_t>(running_)]->resting = true;
  suspend("flag ", 0, nullptr, nullptr);
}

void Machine::outside(std::uint32_t address) const {
  misuse("shared address " + std::to_string(address));
}

std::uint32_t Machine::address_of(const void* pointer) const {
  const auto offset = static_cast<const std::byte*>(pointer) - shared_.get();
  if (offset < 0 || offset >= static_cast<std::ptrdiff_t>(kSharedBytes)) {
    misuse("a pointer is not to shared memory");
  }
  return kSharedBase + static_cast<std::uint32_t>(offset);
}

void Machine::written(std::uint32_t address) {
  const std::size_t chunk = (address - kSharedBase) / 16;
  writers_[chunk] = running_;
  unfenced_[static_cast<std::size_t>(running_)].push_back(chunk);
}

void Machine::fence() {
  auto& chunks = unfenced_[static_cast<std::size_t>(running_)];
  for (const std::size_t chunk : chunks) {
    if (writers_[chunk] == running_) writers_[chunk] = -1;
  }
  chunks.clear();
}

void Machine::not_fenced(std::uint32_t address) const {
  throw Misuse("shared address " + std::to_string(address) + " was written by thread " +
               std::to_string(writers_[(address - kSharedBase) / 16]) + ", which did not fence it");
}

const std::uint64_t* Machine::share(std::uint64_t value) {
  Warp& warp = warps_[static_cast<std::size_t>(running_ / 32)];
  const unsigned generation = warp.generation;
  auto& values = warp.values[generation & 1U];
  values[running_ % 32] = value;
  if (++warp.arrived == 32) {
    warp.arrived = 0;
    ++warp.generation;
  } else {
    block_until("warp ", running_ / 32, [&] { return warp.generation != generation; });
  }
  return values;
}

void Machine::barrier(int id, int threads, bool wait) {
  if (id < 0 || id > 15) misuse("named barrier " + std::to_string(id));
  Named& named = named_[id];
  if (named.arrived > 0 && named.threads != threads) misuse("a barrier of two sizes");
  named.threads = threads;
  const int generation = named.generation;
  if (++named.arrived == threads) {
    named.arrived = 0;
    ++named.generation;
    return;
  }
  if (!wait) return;
  block_until("barrier ", id, [&] { return named.generation != generation; });
}

Machine::Counted& Machine::counted(std::uint64_t* barrier) {
  const auto found = counted_.find(barrier);
  if (found == counted_.end()) misuse("an mbarrier that is not initialised");
  return found->second;
}

void Machine::init(std::uint64_t* barrier, int arrivals) {
  (void)address_of(barrier);
  counted_[barrier] = {arrivals, arrivals, 0, 0};
}

void Machine::arrive(std::uint64_t* barrier, std::int64_t bytes) {
  Counted& b = counted(barrier);
  b.bytes += bytes;
  if (--b.pending < 0) misuse("an mbarrier gets more arrivals than it counts");
  complete(barrier, 0);
}

void Machine::complete(std::uint64_t* barrier, std::int64_t bytes) {
  Counted& b = counted(barrier);
  b.bytes -= bytes;
  if (b.bytes < 0) misuse("an mbarrier gets more bytes than it expects");
  if (b.pending > 0 || b.bytes > 0) return;
  b.pending = b.arrivals;
  ++b.phase;
}

void Machine::await(std::uint64_t* barrier, std::uint32_t parity) {
  Counted& b = counted(barrier);
  block_until("the mbarrier at ", address_of(barrier), [&] { return (b.phase & 1U) != parity; });
}

bool Machine::is_over(std::uint64_t* barrier, std::uint32_t parity) {
  return (counted(barrier).phase & 1U) != parity;
}

void Machine::later(std::function<void()> work) { pending_.push_back(std::move(work)); }

}  // namespace annulus::emulate
