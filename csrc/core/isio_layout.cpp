#include "isio_layout.hpp"

#include <cstring>

#include "errors.hpp"

namespace vampires {
namespace {

constexpr std::uint64_t round_up_8(std::uint64_t bytes) {
    return (bytes + 7) & ~std::uint64_t{7};
}

// Sizes beyond this are absurd for shared memory and would only overflow the sums below.
constexpr std::uint64_t kMaxFileBytes = std::uint64_t{1} << 46;

std::uint64_t checked_product(std::uint64_t a, std::uint64_t b, const char* what) {
    std::uint64_t product = 0;
    if (__builtin_mul_overflow(a, b, &product) || product > kMaxFileBytes) {
        throw StreamInvalid(std::string("absurd size: ") + what + " of " + std::to_string(a) +
                            " x " + std::to_string(b) + " bytes");
    }
    return product;
}

[[noreturn]] void refuse(const std::string& name, const std::string& why) {
    throw StreamInvalid("'" + name + "' is not a stream: " + why);
}

std::string printable_field(const char* text, std::size_t capacity) {
    return printable({text, strnlen(text, capacity)});
}

}  // namespace

std::string printable(std::string_view text) {
    std::string clean(text);
    for (char& c : clean) {
        if (c < ' ' || c > '~') c = '?';
    }
    return clean;
}

StreamLayout compute_layout(const StreamShape& shape) {
    if (shape.naxis < 1 || shape.naxis > 3) {
        throw StreamInvalid("naxis is " + std::to_string(shape.naxis) + ", expected 1 to 3");
    }
    for (int axis = 0; axis < shape.naxis; ++axis) {
        if (shape.size[axis] == 0) {
            throw StreamInvalid("axis " + std::to_string(axis + 1) + " has size 0");
        }
    }
    const std::uint64_t plane =
        std::uint64_t{shape.size[0]} * (shape.naxis > 1 ? shape.size[1] : 1);
    const std::uint64_t elements =
        checked_product(plane, shape.naxis > 2 ? shape.size[2] : 1, "pixel count");
    if (elements > kMaxElements) {
        throw StreamInvalid("it claims " + std::to_string(elements) + " pixels, at most " +
                            std::to_string(kMaxElements) + " are allowed");
    }
    StreamLayout layout;
    std::uint64_t at = sizeof(StreamMetadata);
    const auto place = [&at](std::uint64_t bytes) {
        const std::uint64_t begin = at;
        at += round_up_8(bytes);
        return begin;
    };
    layout.data_bytes = checked_product(elements, pixel_bytes(shape.type), "pixel data");
    layout.data = place(layout.data_bytes);
    layout.keywords = place(sizeof(KeywordEntry) * std::uint64_t{shape.keywords});
    layout.semaphores = place(kSemaphoreBytes * std::uint64_t{shape.semaphores});
    layout.semlog = place(kSemaphoreBytes);
    layout.sem_read_pid = place(4 * std::uint64_t{shape.semaphores});
    layout.sem_write_pid = place(4 * std::uint64_t{shape.semaphores});
    layout.sem_ctrl = place(4 * std::uint64_t{shape.semaphores});
    layout.sem_status = place(4 * std::uint64_t{shape.semaphores});
    layout.proctrace = place(sizeof(ProcTraceEntry) * std::uint64_t{shape.proctraces});
    const std::uint64_t slices = shape.temporal_ring() ? shape.size[2] : 0;
    layout.atime_array = place(sizeof(IsioTime) * slices);
    layout.writetime_array = place(sizeof(IsioTime) * slices);
    layout.cnt_array = place(sizeof(std::uint64_t) * slices);
    layout.cb_metadata = place(sizeof(RingEntry) * std::uint64_t{shape.cb_size});
    layout.cb_data = place(checked_product(layout.data_bytes, shape.cb_size, "ring"));
    layout.file_bytes = at;
    return layout;
}

StreamShape checked_shape(const StreamMetadata& metadata, std::uint64_t file_bytes,
                          const std::string& name) {
    if (file_bytes <= sizeof(StreamMetadata)) {
        throw StreamIncomplete("'" + name + "' is not a stream yet: the file has " +
                               std::to_string(file_bytes) + " bytes, a stream has more than " +
                               std::to_string(sizeof(StreamMetadata)));
    }
    if (metadata.version[0] == '\0') {  // written last by a creator
        throw StreamIncomplete("'" + name + "' is not a stream yet: its version is empty");
    }
    if (metadata.datatype < kFirstPixelType || metadata.datatype > kLastPixelType) {
        refuse(name,
               "data type code " + std::to_string(metadata.datatype) + ", expected 1 to 13");
    }
    if (metadata.location != -1) {
        refuse(name, "its pixels are on GPU " + std::to_string(metadata.location) +
                         ", only streams in main memory can be read");
    }
    if (metadata.name[0] == '\0') refuse(name, "its name field is empty");
    // A soft check: later libraries say MAJOR.MINOR with the same layout; the size decides.
    if (std::strncmp(metadata.version, "2.", 2) != 0) {
        refuse(name, "its version is '" +
                         printable_field(metadata.version, sizeof metadata.version) +
                         "', expected 2.x (ImageStreamIO " + kIsioVersion + ")");
    }
    StreamShape shape;
    shape.type = static_cast<PixelType>(metadata.datatype);
    shape.naxis = metadata.naxis;
    for (int axis = 0; axis < 3 && axis < metadata.naxis; ++axis) {
        shape.size[axis] = metadata.size[axis];
    }
    shape.imagetype = metadata.imagetype;
    shape.semaphores = metadata.sem;
    shape.proctraces = metadata.nb_proctrace;
    shape.keywords = metadata.nb_kw;
    shape.cb_size = metadata.cb_size;
    StreamLayout layout;
    try {
        layout = compute_layout(shape);
    } catch (const StreamInvalid& error) {
        refuse(name, error.what());
    }
    if (layout.file_bytes != file_bytes) {
        refuse(name, "the file has " + std::to_string(file_bytes) +
                         " bytes, its header calls for " + std::to_string(layout.file_bytes) +
                         "; it was truncated, or written by a build with another layout");
    }
    return shape;
}

}  // namespace vampires
