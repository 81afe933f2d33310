#include "cube_file.hpp"

#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <system_error>

#include "chunk_pool.hpp"
#include "fits_sum.hpp"

namespace vampires {
namespace {

// How far space is reserved ahead of the data; the rest is given back at the end.
constexpr std::uint64_t kAllocateAhead = std::uint64_t{1} << 30;

[[noreturn]] void fail(int error, const std::string& what) {
    throw std::system_error(error, std::generic_category(), what);
}

int create(const std::string& path) {
    const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0) fail(errno, "cannot create " + path);
    return fd;
}

// Whether the file system has direct I/O. Not asked for in open(): where it has none, some
// kernels refuse after they made the file.
bool use_direct_io(int fd) noexcept {
    return fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_DIRECT) == 0;
}

int write_all(int fd, std::span<const std::byte> bytes, std::uint64_t offset) noexcept {
    while (!bytes.empty()) {
        const ssize_t written =
            pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
        if (written < 0 && errno == EINTR) continue;
        if (written < 0) return errno;
        if (written == 0) return EIO;
        bytes = bytes.subspan(static_cast<std::size_t>(written));
        offset += static_cast<std::uint64_t>(written);
    }
    return 0;
}

}  // namespace

void CubeFile::open(const CubeFileNames& names, std::uint64_t expected_bytes) {
    names_ = names;
    journal_fd_ = create(names.journal);
    try {
        data_fd_ = create(names.data);
    } catch (...) {
        discard();
        throw;
    }
    direct_ = use_direct_io(data_fd_);
    struct statfs system = {};
    // In a file system in memory reserving is filling.
    allocates_ = fstatfs(data_fd_, &system) == 0 && system.f_type != TMPFS_MAGIC;
    expected_bytes_ = expected_bytes;
    allocated_bytes_ = 0;
    journal_bytes_ = 0;
    allocate_ahead(0);
}

void CubeFile::allocate_ahead(std::uint64_t end) noexcept {
    if (!allocates_ || end < allocated_bytes_ || allocated_bytes_ >= expected_bytes_) return;
    const std::uint64_t target = std::min(expected_bytes_, end + kAllocateAhead);
    if (target <= allocated_bytes_) return;
    const auto begin = static_cast<off_t>(allocated_bytes_);
    const auto length = static_cast<off_t>(target - allocated_bytes_);
    // Without room for all of it the data go where there is some, until there is none.
    if (fallocate(data_fd_, FALLOC_FL_KEEP_SIZE, begin, length) != 0) allocates_ = false;
    allocated_bytes_ = target;
}

int CubeFile::write_pages(std::span<const std::byte> pages, std::uint64_t offset) noexcept {
    allocate_ahead(offset + pages.size());
    const int error = write_all(data_fd_, pages, offset);
    if (error != EINVAL || !direct_) return error;
    fcntl(data_fd_, F_SETFL, fcntl(data_fd_, F_GETFL) & ~O_DIRECT);
    direct_ = false;
    return write_all(data_fd_, pages, offset);
}

int CubeFile::append_rows(std::span<const std::byte> rows) noexcept {
    const int error = write_all(journal_fd_, rows, journal_bytes_);
    if (error == 0) journal_bytes_ += rows.size();
    return error;
}

std::vector<std::byte> CubeFile::read_rows(std::size_t n_rows) {
    std::vector<std::byte> rows(n_rows * kFrameRowBytes);
    for (std::size_t done = 0; done < rows.size();) {
        const ssize_t got = pread(journal_fd_, rows.data() + done, rows.size() - done,
                                  static_cast<off_t>(done));
        if (got <= 0) fail(got < 0 ? errno : EIO, "cannot read back " + names_.journal);
        done += static_cast<std::size_t>(got);
    }
    return rows;
}

void CubeFile::finish(std::span<const std::byte> header, std::uint64_t data_bytes,
                      std::span<const std::byte> extension) {
    static constexpr std::array<std::byte, kFitsBlock> kZeros{};
    restore_if_unlinked();
    fcntl(data_fd_, F_SETFL, fcntl(data_fd_, F_GETFL) & ~O_DIRECT);
    direct_ = false;
    const std::uint64_t end = header.size() + data_bytes;
    const std::size_t padding = (kFitsBlock - end % kFitsBlock) % kFitsBlock;
    if (ftruncate(data_fd_, static_cast<off_t>(end)) != 0)
        fail(errno, "cannot cut " + names_.data);
    int error = write_all(data_fd_, header, 0);
    if (error == 0) error = write_all(data_fd_, std::span(kZeros).first(padding), end);
    if (error == 0) error = write_all(data_fd_, extension, end + padding);
    if (error == 0 && fsync(data_fd_) != 0) error = errno;
    if (error != 0) fail(error, "cannot finish " + names_.data);
}

std::uint32_t CubeFile::read_data_sum(std::uint64_t header_bytes, std::uint64_t data_bytes) {
    constexpr std::size_t kPiece = std::size_t{1} << 20;
    fcntl(data_fd_, F_SETFL, fcntl(data_fd_, F_GETFL) & ~O_DIRECT);
    direct_ = false;
    std::vector<std::byte> piece(kPiece);
    std::uint32_t sum = 0;
    for (std::uint64_t done = 0; done < data_bytes;) {
        const std::size_t wanted = std::min<std::uint64_t>(kPiece, data_bytes - done);
        const ssize_t got =
            pread(data_fd_, piece.data(), wanted, static_cast<off_t>(header_bytes + done));
        if (got <= 0) fail(got < 0 ? errno : EIO, "cannot read back " + names_.data);
        sum = sum_add(sum,
                      sum_shift(fits_sum(piece.data(), static_cast<std::size_t>(got)), done));
        done += static_cast<std::uint64_t>(got);
    }
    return sum;
}

void CubeFile::restore_if_unlinked() {
    struct stat status = {};
    struct stat named = {};
    if (fstat(data_fd_, &status) != 0) fail(errno, "cannot look at " + names_.data);
    const bool found = stat(names_.data.c_str(), &named) == 0;
    if (found && named.st_ino == status.st_ino && named.st_dev == status.st_dev) return;
    CubeFile restored;
    restored.names_ = names_;
    restored.data_fd_ = create(names_.data);
    std::vector<std::byte> piece(std::size_t{4} << 20);
    fcntl(data_fd_, F_SETFL, fcntl(data_fd_, F_GETFL) & ~O_DIRECT);
    for (off_t done = 0; done < status.st_size;) {
        const ssize_t got = pread(data_fd_, piece.data(), piece.size(), done);
        const int error = got <= 0
                              ? (got < 0 ? errno : EIO)
                              : write_all(restored.data_fd_,
                                          std::span(piece).first(static_cast<std::size_t>(got)),
                                          static_cast<std::uint64_t>(done));
        if (error != 0) {
            restored.discard();
            fail(error, "cannot restore " + names_.data);
        }
        done += got;
    }
    std::swap(data_fd_, restored.data_fd_);
    allocates_ = false;
}

void CubeFile::close() noexcept {
    if (data_fd_ >= 0) ::close(data_fd_);
    if (journal_fd_ >= 0) ::close(journal_fd_);
    data_fd_ = journal_fd_ = -1;
}

void CubeFile::discard() noexcept {
    if (data_fd_ >= 0) unlink(names_.data.c_str());
    if (journal_fd_ >= 0) unlink(names_.journal.c_str());
    close();
}

bool rename_new(const std::string& from, const std::string& to) {
    if (syscall(SYS_renameat2, AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(),
                RENAME_NOREPLACE) == 0) {
        return true;
    }
    if (errno == EEXIST) return false;
    if (errno != EINVAL && errno != ENOSYS) fail(errno, "cannot rename " + from + " to " + to);
    // A file system without that call (NFS): a link never replaces either.
    if (link(from.c_str(), to.c_str()) != 0) {
        if (errno == EEXIST) return false;
        fail(errno, "cannot rename " + from + " to " + to);
    }
    unlink(from.c_str());
    return true;
}

void sync_directory(const std::string& directory) {
    const int fd = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) fail(errno, "cannot open directory " + directory);
    const int error = fsync(fd) != 0 ? errno : 0;
    ::close(fd);
    if (error != 0 && error != EINVAL) fail(error, "cannot sync directory " + directory);
}

}  // namespace vampires
