#include "stream_semaphore.hpp"

#include <semaphore.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <mutex>
#include <set>
#include <utility>

namespace vampires {
namespace {

static_assert(sizeof(sem_t) == kSemaphoreBytes);

sem_t* as_sem(std::byte* at) { return reinterpret_cast<sem_t*>(at); }

// The count is the first 32-bit word of glibc's 64-bit sem_t.
std::uint32_t sem_count(std::byte* at) {
    return load(*reinterpret_cast<std::uint32_t*>(at));
}

bool alive(std::int32_t pid) { return pid > 0 && (kill(pid, 0) == 0 || errno == EPERM); }

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
    std::atomic_ref<std::int32_t>(file_->sem_read_pid()[index_]).compare_exchange_strong(pid, -1);
}

std::uint32_t ClaimedSemaphore::value() const noexcept {
    return sem_count(file_->semaphore(index_));
}

bool ClaimedSemaphore::drain() noexcept {
    sem_t* sem = as_sem(file_->semaphore(index_));
    for (int taken = 0; taken < 1000; ++taken) {
        if (sem_trywait(sem) != 0) return true;
    }
    return false;
}

ClaimedSemaphore::Wake ClaimedSemaphore::wait(std::chrono::nanoseconds timeout) noexcept {
    timespec deadline = {};
    clock_gettime(CLOCK_MONOTONIC, &deadline);
    const std::int64_t nanoseconds = deadline.tv_nsec + timeout.count();
    deadline.tv_sec += nanoseconds / 1'000'000'000;
    deadline.tv_nsec = nanoseconds % 1'000'000'000;
    // CLOCK_MONOTONIC: a stepped wall clock neither stretches nor cuts the wait.
    if (sem_clockwait(as_sem(file_->semaphore(index_)), CLOCK_MONOTONIC, &deadline) == 0) {
        return Wake::posted;
    }
    return errno == EINTR ? Wake::interrupted : Wake::timeout;
}

void init_semaphores(StreamFile& file) noexcept {
    for (std::uint16_t index = 0; index < file.shape().semaphores; ++index) {
        sem_init(as_sem(file.semaphore(index)), 1, 0);
        file.sem_read_pid()[index] = -1;
        file.sem_write_pid()[index] = -1;
    }
}

void post_all(StreamFile& file) noexcept {
    const auto pid = static_cast<std::int32_t>(getpid());
    for (std::uint16_t index = 0; index < file.shape().semaphores; ++index) {
        if (sem_count(file.semaphore(index)) >= kSemaphoreMax) continue;
        sem_post(as_sem(file.semaphore(index)));
        store(file.sem_write_pid()[index], pid);
    }
    if (sem_count(file.semlog()) < kSemaphoreMax) sem_post(as_sem(file.semlog()));
}

}  // namespace vampires
