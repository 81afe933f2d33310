// A FITS file that grows on disk while its cube is taken, and its journal of frames.
//
// Blocks and offsets only; what the header says is not its business. The file is written under
// a hidden name with direct I/O where the file system has it. Until it is finished, header
// blocks, whole frames and their rows in the journal are enough to rebuild the cube.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace vampires {

inline constexpr std::size_t kFitsBlock = 2880;

struct CubeFileNames {
    std::string data;     // hidden name of the growing FITS file
    std::string journal;  // hidden name of its frame rows
};

// Kept free of cubes on every disk: directories and the tables of the file system grow, too.
inline constexpr std::uint64_t kDiskReserve = std::uint64_t{256} << 10;

// Disk space of a cube: all that will ever be written of it.
struct CubeRoom {
    std::uint64_t data_bytes = 0;     // header, pixels, table
    std::uint64_t journal_bytes = 0;  // rows, and what the sidecar takes while they are there
    bool required = false;            // where there is less nothing is opened

    static CubeRoom of(std::uint64_t header_bytes, std::uint64_t frame_bytes,
                       std::uint64_t frames) noexcept;
    std::uint64_t total() const noexcept { return data_bytes + journal_bytes + kDiskReserve; }
};

class CubeFile {
  public:
    CubeFile() = default;
    ~CubeFile() { close(); }
    CubeFile(const CubeFile&) = delete;
    CubeFile& operator=(const CubeFile&) = delete;

    // Creates both files, and keeps the space for them where the file system can: it is taken
    // from others without the files being any longer. Throws std::system_error with the path,
    // ENOSPC also when the room is required and not there; nothing is left behind then.
    void open(const CubeFileNames& names, const CubeRoom& room);
    // All the space of the cube is kept for it: no write of it finds the disk full.
    bool reserved() const noexcept { return reserved_; }
    // What is free on its disk; 0 when that cannot be told.
    std::uint64_t free_bytes() const noexcept;
    bool is_open() const noexcept { return data_fd_ >= 0; }
    bool direct() const noexcept { return direct_; }

    // Writes whole pages at a page-aligned offset. 0, or errno with nothing or part written;
    // to be called again with the same arguments then.
    int write_pages(std::span<const std::byte> pages, std::uint64_t offset) noexcept;
    // Appends rows. 0 or errno; a part written is taken back.
    int append_rows(std::span<const std::byte> rows) noexcept;

    // The first n_rows of the journal. Throws std::system_error.
    std::vector<std::byte> read_rows(std::size_t n_rows);

    // The last steps, each throwing std::system_error; may be repeated after an error.
    // Sets the header, puts zeros up to a whole block and then the extension behind the data,
    // cuts the files to what is in them; all of it is on disk when this returns.
    void finish(std::span<const std::byte> header, std::uint64_t data_bytes,
                std::span<const std::byte> extension);
    // The data sum of the first data_bytes after the header, read back from the file.
    std::uint32_t read_data_sum(std::uint64_t header_bytes, std::uint64_t data_bytes);
    // When the name leads to the file no more (it or its directory was removed, or moved
    // without the name following), puts the contents into a new file of the name. Throws
    // std::system_error; never replaces another file.
    void restore_if_unlinked();

    void close() noexcept;
    // Closes and removes both files.
    void discard() noexcept;

  private:
    void keep_room(const CubeRoom& room);

    CubeFileNames names_;
    int data_fd_ = -1;
    int journal_fd_ = -1;
    bool direct_ = false;
    bool reserved_ = false;
    std::uint64_t journal_bytes_ = 0;
};

// Renames without ever replacing: false when `to` exists. Throws std::system_error otherwise.
bool rename_new(const std::string& from, const std::string& to);
// Makes a rename in the directory durable. Throws std::system_error.
void sync_directory(const std::string& directory);

}  // namespace vampires
