// The binary layout of an ImageStreamIO 2.00 stream file (<dir>/<name>.im.shm).
//
// Offsets and region order were measured on files written by the library itself; they are
// asserted below and tested against files it wrote. Nothing here touches a mapping.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "pixel_type.hpp"

namespace vampires {

inline constexpr char kIsioVersion[] = "2.00";
inline constexpr std::uint16_t kSemaphores = 10;
inline constexpr std::uint32_t kSemaphoreMax = 10;  // a post is skipped at this value
inline constexpr std::uint16_t kProcTraces = 10;
inline constexpr std::size_t kMaxNameBytes = 79;
// Above this many pixels the existing library refuses a stream.
inline constexpr std::uint64_t kMaxElements = 10'000'000'000;

// Bits of StreamMetadata::imagetype.
inline constexpr std::uint64_t kCircularBuffer = 0x1;
inline constexpr std::uint64_t kMathData = 0x2;
inline constexpr std::uint64_t kZAxisTemporal = 0x20000;
inline constexpr std::uint64_t kTemporalRingMask = 0xF000F;
inline constexpr std::uint64_t kTemporalRing = kCircularBuffer | kZAxisTemporal;

struct IsioTime {
    std::int64_t sec;
    std::int64_t nsec;
};

struct StreamMetadata {
    char version[32];
    char name[80];
    std::uint8_t naxis;
    std::uint32_t size[3];
    std::uint64_t nelement;
    std::uint8_t datatype;
    std::uint64_t imagetype;
    IsioTime creationtime;
    IsioTime lastaccesstime;
    IsioTime atime;
    IsioTime writetime;
    std::int32_t creator_pid;
    std::int32_t owner_pid;
    std::uint8_t shared;
    std::uint64_t inode;
    std::int8_t location;
    std::uint8_t status;
    std::uint32_t keywords_set_after;  // ours, in a hole: see keyword_table.hpp
    std::uint64_t flag;
    std::uint8_t logflag;
    std::uint16_t sem;
    std::uint16_t nb_proctrace;
    std::uint64_t cnt0;
    std::uint64_t cnt1;
    std::uint64_t cnt2;
    std::uint8_t write;
    std::uint16_t nb_kw;
    std::uint32_t cb_size;
    std::uint32_t cb_index;
    std::uint32_t keyword_changes;  // ours, in a hole
    std::uint64_t cb_cycle;
    std::uint64_t imdatamemsize;
    char cuda_mem_handle[64];
};

struct KeywordEntry {
    char name[16];
    char type;  // 'L' int64, 'D' double, 'S' text, 'N' unused
    union {
        std::int64_t as_int;
        double as_double;
        char as_text[16];
    } value;
    std::uint64_t cnt;
    char comment[80];
};

struct ProcTraceEntry {
    std::int32_t triggermode;
    std::int32_t procwrite_pid;
    std::uint64_t trigger_inode;
    IsioTime ts_procstart;
    IsioTime ts_streamupdate;
    std::int32_t trigsemindex;
    std::int32_t triggerstatus;
    std::uint64_t cnt0;
};

struct RingEntry {  // CBFRAMEMD: present in the file, written by no known writer
    std::uint64_t cnt0;
    std::uint64_t cnt1;
    IsioTime atime;
    IsioTime writetime;
};

inline constexpr std::size_t kSemaphoreBytes = 32;  // glibc sem_t, 64-bit

static_assert(sizeof(StreamMetadata) == 384);
static_assert(offsetof(StreamMetadata, name) == 32);
static_assert(offsetof(StreamMetadata, naxis) == 112);
static_assert(offsetof(StreamMetadata, size) == 116);
static_assert(offsetof(StreamMetadata, nelement) == 128);
static_assert(offsetof(StreamMetadata, datatype) == 136);
static_assert(offsetof(StreamMetadata, imagetype) == 144);
static_assert(offsetof(StreamMetadata, creationtime) == 152);
static_assert(offsetof(StreamMetadata, lastaccesstime) == 168);
static_assert(offsetof(StreamMetadata, atime) == 184);
static_assert(offsetof(StreamMetadata, writetime) == 200);
static_assert(offsetof(StreamMetadata, creator_pid) == 216);
static_assert(offsetof(StreamMetadata, shared) == 224);
static_assert(offsetof(StreamMetadata, inode) == 232);
static_assert(offsetof(StreamMetadata, location) == 240);
static_assert(offsetof(StreamMetadata, keywords_set_after) == 244);
static_assert(offsetof(StreamMetadata, flag) == 248);
static_assert(offsetof(StreamMetadata, logflag) == 256);
static_assert(offsetof(StreamMetadata, sem) == 258);
static_assert(offsetof(StreamMetadata, nb_proctrace) == 260);
static_assert(offsetof(StreamMetadata, cnt0) == 264);
static_assert(offsetof(StreamMetadata, cnt1) == 272);
static_assert(offsetof(StreamMetadata, write) == 288);
static_assert(offsetof(StreamMetadata, nb_kw) == 290);
static_assert(offsetof(StreamMetadata, cb_size) == 292);
static_assert(offsetof(StreamMetadata, cb_index) == 296);
static_assert(offsetof(StreamMetadata, keyword_changes) == 300);
static_assert(offsetof(StreamMetadata, cb_cycle) == 304);
static_assert(offsetof(StreamMetadata, imdatamemsize) == 312);
static_assert(offsetof(StreamMetadata, cuda_mem_handle) == 320);
static_assert(sizeof(KeywordEntry) == 128);
static_assert(offsetof(KeywordEntry, type) == 16);
static_assert(offsetof(KeywordEntry, value) == 24);
static_assert(offsetof(KeywordEntry, cnt) == 40);
static_assert(offsetof(KeywordEntry, comment) == 48);
static_assert(sizeof(ProcTraceEntry) == 64);
static_assert(sizeof(RingEntry) == 48);

// The values that decide the layout, copied out of a mapping once and then trusted.
struct StreamShape {
    PixelType type{};
    std::uint8_t naxis = 0;
    std::array<std::uint32_t, 3> size{};  // x, y, z; unused axes are 0
    std::uint64_t imagetype = 0;
    std::uint16_t semaphores = kSemaphores;
    std::uint16_t proctraces = kProcTraces;
    std::uint16_t keywords = 0;
    std::uint32_t cb_size = 0;

    // Three axes, circular, temporal z: a sequence of 2D frames.
    bool temporal_ring() const noexcept {
        return naxis == 3 && (imagetype & kTemporalRingMask) == kTemporalRing;
    }
    std::uint64_t elements() const noexcept {
        return std::uint64_t{size[0]} * (naxis > 1 ? size[1] : 1) * (naxis > 2 ? size[2] : 1);
    }
    bool operator==(const StreamShape&) const = default;
};

// The text with '?' for every byte that is not printable ASCII.
std::string printable(std::string_view text);

// Byte offsets of every region, in file order.
struct StreamLayout {
    std::uint64_t data = 0;
    std::uint64_t keywords = 0;
    std::uint64_t semaphores = 0;
    std::uint64_t semlog = 0;
    std::uint64_t sem_read_pid = 0;
    std::uint64_t sem_write_pid = 0;
    std::uint64_t sem_ctrl = 0;
    std::uint64_t sem_status = 0;
    std::uint64_t proctrace = 0;
    std::uint64_t atime_array = 0;
    std::uint64_t writetime_array = 0;
    std::uint64_t cnt_array = 0;
    std::uint64_t cb_metadata = 0;
    std::uint64_t cb_data = 0;
    std::uint64_t file_bytes = 0;
    std::uint64_t data_bytes = 0;  // of the array, unrounded (imdatamemsize)
};

// Throws StreamInvalid when a field is out of bounds or the size overflows.
StreamLayout compute_layout(const StreamShape& shape);

// The shape described by raw metadata, every field checked against its bounds and the layout
// against file_bytes. Throws StreamInvalid; `name` is used in the message.
StreamShape checked_shape(const StreamMetadata& metadata, std::uint64_t file_bytes,
                          const std::string& name);

}  // namespace vampires
