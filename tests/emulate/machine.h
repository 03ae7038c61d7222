#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

// A block of a GPU on the host: each thread a fiber, run one at a time in an order drawn from a
// seed, so that what a kernel does to shared memory, barriers and copies can be watched. What is
// asynchronous on the GPU happens here as late as it may, or earlier, by the draw.
namespace annulus::emulate {

/// The kernel does what the machine forbids, or nobody can go on. The text says who and where.
struct Misuse : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Index {
  unsigned x = 0, y = 0, z = 0;
};

struct Options {
  std::uint64_t seed = 1;
  /// What the world outside does, one at a time, when the block waits for nothing else.
  std::vector<std::function<void()>> late;
};

inline constexpr std::uint32_t kSharedBase = 1024;  ///< address of the first byte
inline constexpr std::size_t kSharedBytes = 227 * 1024;

class Machine {
 public:
  explicit Machine(Options options);
  ~Machine();
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

  /// Runs body as `threads` threads of block `block` to their ends. Throws Misuse.
  void run(int threads, Index block, Index grid, const std::function<void()>& body);

  /// Of this thread, which has one at a time.
  static Machine& current() {
    if (current_ == nullptr) none_runs();
    return *current_;
  }

  // For threads.
  int thread() const { return running_; }
  int threads() const { return static_cast<int>(fibers_.size()); }
  Index block() const { return block_; }
  Index grid() const { return grid_; }
  template <typename Ready>
  void block_until(const char* what, std::int64_t detail, Ready&& ready) {
    if (ready()) return;
    using Plain = std::remove_reference_t<Ready>;
    suspend(
        what, detail, [](void* from) { return (*static_cast<Plain*>(from))(); }, &ready);
  }
  /// Until the world outside has done something.
  void rest();
  [[noreturn]] void misuse(const std::string& what) const;
  std::uint64_t draw() { return random_(); }
  bool toss() { return (random_() & 1U) != 0; }
  /// Looks at all threads so far: what shall happen later is given a count of them.
  std::uint64_t passes() const { return passes_; }

  // Shared memory. Ordinary writes are remembered until their thread fences them.
  std::byte* shared() { return shared_.get(); }
  std::byte* at(std::uint32_t address, std::size_t bytes) {
    if (address < kSharedBase || address + bytes > kSharedBase + kSharedBytes) outside(address);
    return shared_.get() + (address - kSharedBase);
  }
  std::uint32_t address_of(const void* pointer) const;
  void written(std::uint32_t address);          ///< the 16 bytes around it, by an ordinary store
  void fence();                                 ///< of this thread's
  void require_fenced(std::uint32_t address) {  ///< before an asynchronous access
    if (writers_[(address - kSharedBase) / 16] >= 0) not_fenced(address);
  }

  // Warps.
  std::uint64_t exchange(std::uint64_t value, int from) { return share(value)[from & 31]; }
  /// What the 32 lanes gave, to be read before the next call.
  const std::uint64_t* share(std::uint64_t value);

  // Barriers.
  void barrier(int id, int threads, bool wait);
  void init(std::uint64_t* barrier, int arrivals);
  void arrive(std::uint64_t* barrier, std::int64_t bytes);
  void complete(std::uint64_t* barrier, std::int64_t bytes);
  void await(std::uint64_t* barrier, std::uint32_t parity);
  bool is_over(std::uint64_t* barrier, std::uint32_t parity);

  /// Happens later: by the draw, or when nobody can go on.
  void later(std::function<void()> work);

 private:
  struct Fiber;
  struct Named {
    int arrived = 0, threads = 0, generation = 0;
  };
  struct Counted {
    int arrivals = 0, pending = 0;
    std::int64_t bytes = 0;
    std::uint32_t phase = 0;
  };
  struct Warp {
    std::uint64_t values[2][32];
    int arrived = 0;
    unsigned generation = 0;
  };

  void suspend(const char* what, std::int64_t detail, bool (*ready)(void*), void* from);
  void go_on(Fiber& fiber);
  void schedule();
  bool pass();
  bool advance();
  std::string waiting() const;
  Counted& counted(std::uint64_t* barrier);
  static void enter(unsigned high, unsigned low);
  [[noreturn]] static void none_runs();
  [[noreturn]] void outside(std::uint32_t address) const;
  [[noreturn]] void not_fenced(std::uint32_t address) const;

  static inline constinit thread_local Machine* current_ =
      nullptr;  // ranks are threads, each with its GPU
  Options options_;
  std::mt19937_64 random_;
  std::unique_ptr<std::byte[], void (*)(void*)> shared_;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::unique_ptr<Fiber> host_;
  int running_ = -1;
  std::uint64_t passes_ = 0;
  std::uint64_t slow_ = 8;  ///< warpgroup that is left out, and for how many passes more
  std::uint64_t slow_passes_ = 0;
  std::size_t next_late_ = 0;
  Index block_, grid_;
  const std::function<void()>* body_ = nullptr;
  std::exception_ptr failure_;
  std::map<int, Named> named_;
  std::map<std::uint64_t*, Counted> counted_;
  std::vector<Warp> warps_;
  std::vector<std::function<void()>> pending_;
  std::vector<int> writers_;
  std::vector<std::vector<std::size_t>> unfenced_;
};

}  // namespace annulus::emulate
