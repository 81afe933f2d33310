#include "stream_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "errors.hpp"

namespace vampires {
namespace {

constexpr char kSuffix[] = ".im.shm";

bool openable(const char* directory) {
    std::error_code error;
    return directory != nullptr && *directory != '\0' &&
           std::filesystem::is_directory(directory, error);
}

int open_stream(const std::string& name, const std::string& path) {
    const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (fd >= 0) return fd;
    if (errno == ENOENT) throw StreamNotFound("no stream '" + name + "' (" + path + ")");
    throw StreamInvalid("cannot open stream '" + name + "' (" + path +
                        "): " + std::strerror(errno));
}

std::uint64_t stream_file_bytes(int fd, const std::string& name) {
    struct stat status = {};
    if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
        close(fd);
        throw StreamInvalid("'" + name + "' is not a stream: it is not a regular file");
    }
    return static_cast<std::uint64_t>(status.st_size);
}

// Reads the metadata through the file, not a mapping: before it is checked, nothing is mapped.
StreamShape read_shape(int fd, const std::string& name) {
    const std::uint64_t bytes = stream_file_bytes(fd, name);
    StreamMetadata metadata = {};
    const ssize_t got = pread(fd, &metadata, sizeof metadata, 0);
    try {
        return checked_shape(metadata, got == sizeof metadata ? bytes : 0, name);
    } catch (...) {
        close(fd);
        throw;
    }
}

}  // namespace

std::string stream_directory() {
    const char* from_environment = std::getenv("MILK_SHM_DIR");
    if (openable(from_environment)) return from_environment;
    return openable("/milk/shm") ? "/milk/shm" : "/tmp";
}

std::string stream_path(const std::string& directory, std::string_view name) {
    const auto legal = [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               c == '_' || c == '-' || c == '.' || c == '+';
    };
    if (name.empty() || name.size() > kMaxNameBytes || name.front() == '.' ||
        !std::all_of(name.begin(), name.end(), legal)) {
        throw StreamInvalid("'" + printable(name.substr(0, 100)) +
                            "' cannot be a stream name: expected 1 to 79 letters, digits, "
                            "'_', '-', '+' or '.', not starting with a dot");
    }
    return directory + "/" + std::string(name) + kSuffix;
}

std::vector<std::string> list_streams(const std::string& directory) {
    std::vector<std::string> names;
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
        const std::string file = entry.path().filename().string();
        const std::size_t tail = sizeof kSuffix - 1;
        if (file.size() > tail && file[0] != '.' && file.ends_with(kSuffix)) {
            names.push_back(file.substr(0, file.size() - tail));
        }
    }
    std::sort(names.begin(), names.end());
    return names;
}

std::shared_ptr<StreamFile> StreamFile::open(const std::string& directory,
                                             const std::string& name) {
    const std::string path = stream_path(directory, name);
    return std::make_shared<StreamFile>(open_stream(name, path), std::nullopt, name, path);
}

StreamFile::StreamFile(int fd, const std::optional<StreamShape>& shape, const std::string& name,
                       const std::string& path)
    : name_(name),
      path_(path),
      shape_(shape ? *shape : read_shape(fd, name)),
      layout_(compute_layout(shape_)),
      mapping_(fd, layout_.file_bytes) {}

FileFate StreamFile::fate() const noexcept {
    struct stat status = {};
    if (broken()) return FileFate::truncated;
    if (fstat(mapping_.fd(), &status) == 0 &&
        static_cast<std::uint64_t>(status.st_size) < layout_.file_bytes) {
        return FileFate::truncated;
    }
    if (stat(path_.c_str(), &status) != 0) return FileFate::removed;
    return status.st_ino == inode() ? FileFate::same : FileFate::replaced;
}

std::uint64_t StreamFile::frame_bytes(bool as_slices) const noexcept {
    return as_slices ? layout_.data_bytes / shape_.size[2] : layout_.data_bytes;
}

std::int64_t to_ns(const IsioTime& time) noexcept {
    constexpr std::int64_t kYear2000 = 946'684'800;
    constexpr std::int64_t kYear2100 = 4'102'444'800;
    if (time.sec < kYear2000 || time.sec >= kYear2100) return 0;
    if (time.nsec < 0 || time.nsec >= 1'000'000'000) return 0;
    return time.sec * 1'000'000'000 + time.nsec;
}

IsioTime from_ns(std::int64_t time_ns) noexcept {
    return {time_ns / 1'000'000'000, time_ns % 1'000'000'000};
}

}  // namespace vampires
