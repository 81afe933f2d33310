#include "cube_file.hpp"

#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
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

// Of a frame: its row in the table; its row in the journal and its line in the sidecar, which
// are there at the same time for a moment. Of a cube: headings, and the last blocks.
constexpr std::uint64_t kTableRowBytes = kFrameRowBytes;
constexpr std::uint64_t kSidecarLineBytes = 160;
constexpr std::uint64_t kTableHeadBytes = 8 * kFitsBlock;
constexpr std::uint64_t kSidecarHeadBytes = 16 << 10;

[[noreturn]] void fail(int error, const std::string& what) {
    throw std::system_error(error, std::generic_category(), what);
}

// Whoever finds the file knows by its lock that its logger lives. Somebody who just looks holds
// the lock for a moment; a file system without locks is none the worse.
void lock_while_open(int fd) noexcept {
    for (int tries = 0; tries < 20; ++tries) {
        if (flock(fd, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) return;
        usleep(1000);
    }
}

int create(const std::string& path) {
    const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0) fail(errno, "cannot create " + path);
    lock_while_open(fd);
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

CubeRoom CubeRoom::of(std::uint64_t header_bytes, std::uint64_t frame_bytes,
                      std::uint64_t frames) noexcept {
    CubeRoom room;
    room.data_bytes = header_bytes + kTableHeadBytes + frames * (frame_bytes + kTableRowBytes);
    room.journal_bytes = kSidecarHeadBytes + frames * (kFrameRowBytes + kSidecarLineBytes);
    return room;
}

void CubeFile::open(const CubeFileNames& names, const CubeRoom& room) {
    names_ = names;
    journal_fd_ = create(names.journal);
    journal_bytes_ = 0;
    try {
        data_fd_ = create(names.data);
        direct_ = use_direct_io(data_fd_);
        keep_room(room);
    } catch (...) {
        discard();
        throw;
    }
}

// The size of the files stays what was written: nobody ever finds zeros that were never data.
void CubeFile::keep_room(const CubeRoom& room) {
    reserved_ = false;
    struct statfs system = {};
    const bool known = fstatfs(data_fd_, &system) == 0;
    int error = known && free_bytes() < room.total() ? ENOSPC : 0;
    struct rlimit largest = {};  // fallocate() does not look at it, the writes do
    if (getrlimit(RLIMIT_FSIZE, &largest) == 0 && room.data_bytes > largest.rlim_cur) {
        error = EFBIG;
    }
    // In a file system in memory reserving is filling.
    if (error == 0 && known && system.f_type != TMPFS_MAGIC) {
        const auto keep = [](int fd, std::uint64_t bytes) {
            const auto length = static_cast<off_t>(bytes);
            return length == 0 || fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, length) == 0;
        };
        reserved_ = keep(data_fd_, room.data_bytes) && keep(journal_fd_, room.journal_bytes);
        if (!reserved_) error = errno;
    }
    const bool full = error == ENOSPC || error == EDQUOT || error == EFBIG;
    if (full && room.required) fail(error, "no room for " + names_.data);
}

std::uint64_t CubeFile::free_bytes() const noexcept {
    struct statvfs room = {};
    if (fstatvfs(data_fd_, &room) != 0) return 0;
    return std::uint64_t{room.f_bavail} * room.f_frsize;
}

int CubeFile::write_pages(std::span<const std::byte> pages, std::uint64_t offset) noexcept {
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
    const auto cut = [](int fd, std::uint64_t bytes) {
        return ftruncate(fd, static_cast<off_t>(bytes)) == 0 ? 0 : errno;
    };
    // What is kept for the table is given back after the table is there, not before.
    int error = reserved_ ? 0 : cut(data_fd_, end);
    if (error == 0) error = write_all(data_fd_, header, 0);
    if (error == 0) error = write_all(data_fd_, std::span(kZeros).first(padding), end);
    if (error == 0) error = write_all(data_fd_, extension, end + padding);
    if (error == 0) error = cut(data_fd_, end + padding + extension.size());
    if (error == 0) error = cut(journal_fd_, journal_bytes_);
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
    reserved_ = false;
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
