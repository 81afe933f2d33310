#include "stream_semaphore.hpp"

#include <linux/futex.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <mutex>
#include <set>
#include <utility>

namespace vampires {
namespace {

// glibc's 64-bit sem_t: the count in the low half of the first word, in the high half how many
// wait for a post. The C functions are not used: they abort the process when the rest of the
// 32 bytes, which any program can write, or the mapping under them makes no sense.
constexpr std::uint64_t kOneWaiter = std::uint64_t{1} << 32;
constexpr std::int32_t kProcessShared = 0x80;
constexpr std::size_t kPrivateOffset = 8;

std::uint64_t& word(std::byte* sem) {
    return *reinterpret_cast<std::uint64_t*>(sem);
}

std::uint32_t count_of(std::uint64_t state) {
    return static_cast<std::uint32_t>(state);
}

// Takes one post if there is one.
bool take(std::byte* sem, std::uint64_t waiters_less) {
    std::atomic_ref<std::uint64_t> state(word(sem));
    std::uint64_t seen = state.load(std::memory_order_relaxed);
    while (count_of(seen) > 0) {
        if (state.compare_exchange_weak(seen, seen - 1 - waiters_less)) return true;
    }
    return false;
}

// Returns errno, or 0 when woken.
int futex_wait(std::byte* sem, const timespec& deadline) {
    const long result = syscall(SYS_futex, sem, FUTEX_WAIT_BITSET, 0, &deadline, nullptr,
                                FUTEX_BITSET_MATCH_ANY);
    return result == 0 ? 0 : errno;
}

void post(std::byte* sem) {
    const std::uint64_t before = std::atomic_ref<std::uint64_t>(word(sem)).fetch_add(1);
    if (before >= kOneWaiter) syscall(SYS_futex, sem, FUTEX_WAKE, 1, nullptr, nullptr, 0);
}

bool alive(std::int32_t pid) {
    return pid > 0 && (kill(pid, 0) == 0 || errno == EPERM);
}

// (inode, index) of every semaphore claimed in this process; protected by claims_mutex.
std::mutex claims_mutex;
std::set<std::pair<std::uint64_t, std::uint16_t>> claims;

}  // namespace

std::optional<ClaimedSemaphore> ClaimedSemaphore::claim(std::shared_ptr<StreamFile> file) {
    const std::lock_guard lock(claims_mutex);
    const auto pid = static_cast<std::int32_t>(getpid());
    for (std::uint16_t index = 0; index < file->shape().semaphores; ++index) {
        std::atomic_ref<std::int32_t> reader(file->sem_read_pid()[index]);
        std::int32_t holder = reader.load();
        const bool stale_own = holder == pid && !claims.contains({file->inode(), index});
        if (!stale_own && alive(holder)) continue;
        if (!reader.compare_exchange_strong(holder, pid)) continue;  // another was faster
        claims.emplace(file->inode(), index);
        return ClaimedSemaphore(std::move(file), index);
    }
    return std::nullopt;
}

ClaimedSemaphore::ClaimedSemaphore(ClaimedSemaphore&& other) noexcept
    : file_(std::move(other.file_)), index_(other.index_) {}

ClaimedSemaphore::~ClaimedSemaphore() {
    if (!file_) return;
    const std::lock_guard lock(claims_mutex);
    claims.erase({file_->inode(), index_});
    auto pid = static_cast<std::int32_t>(getpid());
    std::atomic_ref<std::int32_t>(file_->sem_read_pid()[index_])
        .compare_exchange_strong(pid, -1);
}

std::uint32_t ClaimedSemaphore::value() const noexcept {
    return count_of(load(word(file_->semaphore(index_))));
}

bool ClaimedSemaphore::drain() noexcept {
    for (int taken = 0; taken < 1000; ++taken) {
        if (!take(file_->semaphore(index_), 0)) return true;
    }
    return false;
}

ClaimedSemaphore::Wake ClaimedSemaphore::wait(std::chrono::nanoseconds timeout) noexcept {
    // CLOCK_MONOTONIC: a stepped wall clock neither stretches nor cuts the wait.
    timespec deadline = {};
    clock_gettime(CLOCK_MONOTONIC, &deadline);
    const std::int64_t nanoseconds = deadline.tv_nsec + timeout.count();
    deadline.tv_sec += nanoseconds / 1'000'000'000;
    deadline.tv_nsec = nanoseconds % 1'000'000'000;
    std::byte* sem = file_->semaphore(index_);
    if (take(sem, 0)) return Wake::posted;
    std::atomic_ref<std::uint64_t> state(word(sem));
    state.fetch_add(kOneWaiter);
    for (;;) {
        const int error = futex_wait(sem, deadline);
        if (take(sem, kOneWaiter)) return Wake::posted;
        if (error == 0 || error == EAGAIN) continue;  // another took the post
        state.fetch_sub(kOneWaiter);
        return error == EINTR ? Wake::interrupted : Wake::timeout;
    }
}

void init_semaphores(StreamFile& file) noexcept {
    for (std::uint16_t index = 0; index < file.shape().semaphores; ++index) {
        store(*reinterpret_cast<std::int32_t*>(file.semaphore(index) + kPrivateOffset),
              kProcessShared);
        file.sem_read_pid()[index] = -1;
        file.sem_write_pid()[index] = -1;
    }
}

void post_all(StreamFile& file) noexcept {
    const auto pid = static_cast<std::int32_t>(getpid());
    for (std::uint16_t index = 0; index < file.shape().semaphores; ++index) {
        if (count_of(load(word(file.semaphore(index)))) >= kSemaphoreMax) continue;
        post(file.semaphore(index));
        store(file.sem_write_pid()[index], pid);
    }
    if (count_of(load(word(file.semlog()))) < kSemaphoreMax) post(file.semlog());
}

}  // namespace vampires
