// Folders and disks of a test's own; nothing of them is left behind.
#pragma once

#include <doctest/doctest.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cstddef>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace vampires::testing {

class TempDirectory {
  public:
    // In shared memory where `in_memory` and there is some, else on the disk of /tmp.
    explicit TempDirectory(bool in_memory = false) {
        path_ = in_memory && access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
        path_ += "/vampires-test-XXXXXX";
        REQUIRE(mkdtemp(path_.data()) != nullptr);
    }
    ~TempDirectory() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    TempDirectory(const TempDirectory&) = delete;
    TempDirectory& operator=(const TempDirectory&) = delete;

    const std::string& path() const noexcept { return path_; }
    std::string operator/(const std::string& name) const { return path_ + "/" + name; }
    std::size_t entries() const {
        using Iterator = std::filesystem::directory_iterator;
        return static_cast<std::size_t>(std::distance(Iterator(path_), Iterator()));
    }

  private:
    std::string path_;
};

// A file system of a few kilobytes, seen by this process alone, where the process may mount
// one.
class TinyDisk {
  public:
    explicit TinyDisk(std::size_t bytes) {
        static const bool private_mounts =
            unshare(CLONE_NEWNS) == 0 &&
            mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
        const std::string options = "size=" + std::to_string(bytes);
        mounted_ = private_mounts &&
                   mount("tmpfs", directory_.path().c_str(), "tmpfs", 0, options.c_str()) == 0;
    }
    ~TinyDisk() {
        if (mounted_) umount2(directory_.path().c_str(), MNT_DETACH);
    }
    TinyDisk(const TinyDisk&) = delete;
    TinyDisk& operator=(const TinyDisk&) = delete;

    // Without the right to mount the test says so and ends.
    bool available() const {
        if (!mounted_) MESSAGE("skipped: mounting a small tmpfs needs root");
        return mounted_;
    }
    const TempDirectory& directory() const noexcept { return directory_; }

    // Takes all the room there is left, and gives it back.
    void fill() const {
        std::ofstream file(directory_ / "filler", std::ios::binary);
        const std::vector<char> page(4096);
        while (file.write(page.data(), static_cast<std::streamsize>(page.size())).flush()) {
        }
    }
    void make_room() const { std::filesystem::remove(directory_ / "filler"); }

  private:
    TempDirectory directory_;
    bool mounted_ = false;
};

inline std::vector<std::byte> file_bytes(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    REQUIRE_MESSAGE(file.good(), path);
    const std::vector<char> text{std::istreambuf_iterator<char>(file), {}};
    const auto* bytes = reinterpret_cast<const std::byte*>(text.data());
    return {bytes, bytes + text.size()};
}

}  // namespace vampires::testing
