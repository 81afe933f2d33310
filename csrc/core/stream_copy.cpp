#include "stream_copy.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <sstream>
#include <system_error>
#include <utility>

#include "errors.hpp"
#include "network.hpp"
#include "utc_clock.hpp"

namespace vampires {
namespace {

// Held while a stream is looked at and taken, so that two receivers never both make it.
class FolderLock {
  public:
    explicit FolderLock(const std::string& directory)
        : fd_(open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
        // Anybody may lock a folder, and for good.
        for (int tries = 0; fd_ >= 0 && flock(fd_, LOCK_EX | LOCK_NB) != 0; ++tries) {
            if (errno != EWOULDBLOCK) break;  // a file system without locks
            if (tries == 100) {
                close(fd_);
                throw StreamBusy("the folder " + directory +
                                 " is locked by another program; end that one first");
            }
            usleep(10'000);
        }
    }
    ~FolderLock() {
        if (fd_ >= 0) close(fd_);
    }
    FolderLock(const FolderLock&) = delete;
    FolderLock& operator=(const FolderLock&) = delete;

  private:
    int fd_;
};

// UTC nanoseconds at which a process began; 0 when there is none of that id.
std::int64_t process_start_ns(std::int32_t pid) {
    std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
    std::string text;
    if (!std::getline(file, text)) return 0;
    const std::size_t name_end = text.rfind(')');  // a name may hold anything
    if (name_end == std::string::npos) return 0;
    std::istringstream fields(text.substr(name_end + 1));
    std::string field;
    std::int64_t ticks = 0;
    fields >> field;
    if (field == "Z" || field == "X") return 0;  // dead, not yet collected
    for (int k = 4; k < 22; ++k) fields >> field;
    if (!(fields >> ticks)) return 0;
    const std::int64_t since_boot_ns = ticks * (1'000'000'000 / sysconf(_SC_CLK_TCK));
    return utc_now_ns() - clock_ns(CLOCK_BOOTTIME) + since_boot_ns;
}

// The creator of the stream, if that process lives still and is not this one; else 0.
std::int32_t living_writer(const StreamMetadata& md) {
    const std::int32_t pid = md.creator_pid;
    if (pid <= 0 || pid == getpid()) return 0;
    const std::int64_t started_ns = process_start_ns(pid);
    const std::int64_t created_ns = to_ns(md.creationtime);
    constexpr std::int64_t kSlack_ns = 2'000'000'000;
    const bool reused = created_ns != 0 && started_ns > created_ns + kSlack_ns;
    return started_ns == 0 || reused ? 0 : pid;
}

// Whether a file that does not open as a stream may be somebody's: one that is being made,
// or a kind of stream that this version does not read. Throws StreamBusy then.
void check_nobodys(const std::string& path, const std::string& why) {
    constexpr std::int64_t kMaking_ns = 10'000'000'000;
    const auto busy = [&](const std::string& what) {
        throw StreamBusy(path + " " + what + " (" + why +
                         "); remove it, or give the copy another name");
    };
    const Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (!file && errno == ENOENT) return;
    struct stat status = {};
    if (!file || fstat(file.get(), &status) != 0) busy("cannot be looked at");
    StreamMetadata metadata = {};
    const bool whole = pread(file.get(), &metadata, sizeof metadata, 0) == sizeof metadata;
    const std::int64_t written_ns = to_ns({status.st_mtim.tv_sec, status.st_mtim.tv_nsec});
    const bool unfinished = metadata.version[0] == '\0';  // it is written last
    if (unfinished && utc_now_ns() - written_ns < kMaking_ns) busy("is just being made");
    if (whole && living_writer(metadata) != 0) busy("belongs to a running program");
}

}  // namespace

StreamCopy::StreamCopy(std::string directory, std::string name)
    : directory_(std::move(directory)),
      name_(std::move(name)),
      path_(stream_path(directory_, name_)) {}

StreamCopy::~StreamCopy() {
    close();
}

void StreamCopy::close() noexcept {
    if (!writer_) return;
    StreamMetadata& md = writer_->file()->metadata();
    if (md.creator_pid == getpid()) md.creator_pid = md.owner_pid = 0;  // nobody's now
    flock(writer_->file()->fd(), LOCK_UN);
    writer_.reset();
}

// The stream that is there, locked; none when there is nothing, or nothing that is a stream.
std::shared_ptr<StreamFile> StreamCopy::found() {
    std::shared_ptr<StreamFile> file;
    try {
        file = StreamFile::open(directory_, name_);
    } catch (const StreamNotFound&) {
        return nullptr;
    } catch (const StreamError& unreadable) {
        check_nobodys(path_, unreadable.what());
        return nullptr;
    }
    if (flock(file->fd(), LOCK_EX | LOCK_NB) != 0) {
        throw StreamBusy("stream '" + name_ + "' (" + path_ +
                         ") is being filled by another receiver; end that one first, or give "
                         "this one another name");
    }
    const std::int32_t writer = living_writer(file->metadata());
    if (writer != 0) {
        throw StreamBusy("stream '" + name_ + "' (" + path_ + ") is written by process " +
                         std::to_string(writer) +
                         ", which is running; end that one first, or give the copy another "
                         "name");
    }
    return file;
}

bool StreamCopy::fits(const StreamFile& file, const StreamShape& shape) const noexcept {
    StreamShape has = file.shape();
    if (has.keywords < shape.keywords || has.semaphores == 0) return false;
    has.keywords = shape.keywords;
    has.semaphores = shape.semaphores;
    has.proctraces = shape.proctraces;
    return has == shape;
}

bool StreamCopy::adopt(const StreamShape& shape, std::uint64_t cnt0) {
    compute_layout(shape);  // throws for what is no stream
    if (current() && fits(file(), shape)) return true;
    close();
    const FolderLock lock(directory_);
    std::shared_ptr<StreamFile> file = found();
    const bool reused = file != nullptr && fits(*file, shape);
    if (!reused) {
        StreamWriter fresh = StreamWriter::create(directory_, name_, {shape, cnt0});
        file = fresh.file();
        flock(file->fd(), LOCK_EX | LOCK_NB);
    }
    StreamMetadata& md = file->metadata();
    md.creator_pid = md.owner_pid = getpid();
    md.creationtime = from_ns(utc_now_ns());  // with the pid, tells a living writer
    // Whoever died writing is not writing now. An array that is half written stays marked: the
    // next frame puts that right.
    if (file->shape().naxis == 3 && file->shape().size[2] > 1) {
        store(md.write, std::uint8_t{0});
    }
    file->keyword_table().end_change();
    writer_.emplace(std::move(file));
    return reused;
}

}  // namespace vampires
