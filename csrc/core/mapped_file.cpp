#include "mapped_file.hpp"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <mutex>
#include <system_error>

namespace vampires {
namespace {

// One guarded mapping. Written under table_mutex, read by the signal handler: `begin` is
// published last and cleared first, so the handler never sees a half-written entry.
struct Guard {
    std::atomic<std::uintptr_t> begin{0};
    std::atomic<std::size_t> bytes{0};
    std::atomic<bool> broken{false};
};

constexpr std::size_t kMaxMappings = 1024;
Guard guards[kMaxMappings];
std::mutex table_mutex;
struct sigaction previous_action;
std::size_t page_bytes;

void pass_on(int signal, siginfo_t* info, void* context) {
    if ((previous_action.sa_flags & SA_SIGINFO) != 0 &&
        previous_action.sa_sigaction != nullptr) {
        previous_action.sa_sigaction(signal, info, context);
    } else if (previous_action.sa_handler != SIG_DFL && previous_action.sa_handler != SIG_IGN) {
        previous_action.sa_handler(signal);
    } else {
        std::signal(signal, SIG_DFL);  // the access faults again and ends the process as usual
    }
}

void on_sigbus(int signal, siginfo_t* info, void* context) {
    const int saved_errno = errno;
    const auto address = reinterpret_cast<std::uintptr_t>(info->si_addr);
    for (Guard& guard : guards) {
        const std::uintptr_t begin = guard.begin.load(std::memory_order_acquire);
        const std::size_t bytes = guard.bytes.load(std::memory_order_relaxed);
        std::atomic_thread_fence(std::memory_order_acquire);
        if (guard.begin.load(std::memory_order_relaxed) != begin) continue;  // just replaced
        if (begin == 0 || address < begin || address - begin >= bytes) continue;
        // Everything from the faulting page on is gone too: one call spares further faults.
        const std::uintptr_t page = address & ~(page_bytes - 1);
        const std::uintptr_t end = (begin + bytes + page_bytes - 1) & ~(page_bytes - 1);
        void* replaced = mmap(reinterpret_cast<void*>(page), end - page, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        if (replaced == MAP_FAILED) break;
        guard.broken.store(true, std::memory_order_release);
        errno = saved_errno;
        return;
    }
    errno = saved_errno;
    pass_on(signal, info, context);
}

void install_handler() {
    page_bytes = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    struct sigaction action = {};
    action.sa_sigaction = on_sigbus;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    if (sigaction(SIGBUS, &action, &previous_action) != 0) {
        throw std::system_error(errno, std::generic_category(), "cannot handle SIGBUS");
    }
}

std::size_t register_guard(const void* begin, std::size_t bytes) {
    const std::lock_guard lock(table_mutex);
    static const bool installed = (install_handler(), true);
    static_cast<void>(installed);
    for (std::size_t index = 0; index < kMaxMappings; ++index) {
        if (guards[index].begin.load(std::memory_order_relaxed) != 0) continue;
        guards[index].broken.store(false, std::memory_order_relaxed);
        guards[index].bytes.store(bytes, std::memory_order_relaxed);
        guards[index].begin.store(reinterpret_cast<std::uintptr_t>(begin),
                                  std::memory_order_release);
        return index;
    }
    throw std::system_error(EMFILE, std::generic_category(),
                            "more than " + std::to_string(kMaxMappings) + " streams are open");
}

}  // namespace

MappedFile::MappedFile(int fd, std::size_t bytes) : fd_(fd), bytes_(bytes) {
    struct stat status = {};
    void* mapping = MAP_FAILED;
    if (fstat(fd_, &status) == 0) {
        inode_ = status.st_ino;
        mapping = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
    }
    if (mapping == MAP_FAILED) {
        const int error = errno;
        close(fd_);
        throw std::system_error(error, std::generic_category(), "cannot map the file");
    }
    data_ = static_cast<std::byte*>(mapping);
    try {
        guard_ = register_guard(data_, bytes_);
    } catch (...) {
        munmap(mapping, bytes_);
        close(fd_);
        throw;
    }
}

MappedFile::~MappedFile() {
    {
        const std::lock_guard lock(table_mutex);
        guards[guard_].begin.store(0, std::memory_order_release);
    }
    munmap(data_, bytes_);
    close(fd_);
}

void MappedFile::let_go(std::size_t offset, std::size_t bytes) const noexcept {
    const std::size_t begin = offset & ~(page_bytes - 1);
    const std::size_t end = (offset + bytes) & ~(page_bytes - 1);
    if (end > begin) madvise(data_ + begin, end - begin, MADV_DONTNEED);
}

bool MappedFile::broken() const noexcept {
    return guards[guard_].broken.load(std::memory_order_acquire);
}

}  // namespace vampires
