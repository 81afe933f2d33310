#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <map>
#include <random>
#include <set>
#include <vector>

#include "chunk_pool.hpp"
#include "fits_sum.hpp"
#include "frame_placer.hpp"

using namespace vampires;

namespace {

using Bytes = std::vector<std::byte>;

// The writer thread's part: files in memory, and the chunks on their way back.
class Disk {
  public:
    struct File {
        Bytes bytes;
        std::uint32_t rows = 0;
        std::vector<std::byte> journal;
        std::uint32_t sum = 0;
        int ends = 0;
    };

    explicit Disk(ChunkPool& pool) : pool_(pool) {}

    // Takes everything that was handed over; returns up to `give_back` of the chunks.
    void write(std::size_t give_back = SIZE_MAX) {
        Delivery delivery;
        while (pool_.full.try_pop(delivery)) take(delivery);
        for (; give_back > 0 && !held_.empty(); --give_back) {
            pool_.free.try_push(*held_.begin());
            held_.erase(held_.begin());
        }
    }
    File& file(std::uint32_t cube) { return files_[cube]; }
    std::size_t n_files() const { return files_.size(); }
    std::size_t held() const { return held_.size(); }

  private:
    void take(const Delivery& delivery) {
        File& file = files_[delivery.cube];
        REQUIRE(file.ends == 0);
        if (delivery.chunk == nullptr) {
            ++file.ends;
            return;
        }
        Chunk& chunk = *delivery.chunk;
        REQUIRE_MESSAGE(held_.insert(&chunk).second, "a chunk was handed over twice");
        REQUIRE(chunk.file_offset % kPageBytes == 0);
        REQUIRE(chunk.file_offset <= file.bytes.size());
        REQUIRE(chunk.used_bytes > 0);
        REQUIRE(chunk.used_bytes <= pool_.chunk_bytes());
        REQUIRE(chunk.n_rows <= pool_.max_rows());
        const std::size_t pages = page_ceil(chunk.used_bytes);
        file.bytes.resize(std::max(file.bytes.size(), chunk.file_offset + pages));
        std::memcpy(file.bytes.data() + chunk.file_offset, chunk.bytes, pages);
        file.rows += chunk.n_rows;
        file.journal.insert(file.journal.end(), chunk.rows,
                            chunk.rows + chunk.n_rows * kFrameRowBytes);
        if (chunk.n_rows > 0) {
            file.sum = chunk.sum_after_rows;
        }
    }

    ChunkPool& pool_;
    std::map<std::uint32_t, File> files_;
    std::set<Chunk*> held_;
};

// What the files must hold in the end.
struct Expected {
    std::size_t header_bytes = 0;
    Bytes data;
    Bytes journal;
    std::uint32_t frames = 0;
};

class Scenario {
  public:
    explicit Scenario(unsigned seed) : random_(seed), disk_(pool_), placer_(pool_) {
        pixel_bytes_ = std::size_t{1} << below(4);
    }

    void run() {
        const std::size_t files = 2 + below(5);
        begin();
        while (expected_.size() < files) step();
        finish_file();
        disk_.write();
        check();
        check_chunks();
    }

  private:
    std::size_t below(std::size_t n) { return random_() % n; }

    std::size_t random_header() {
        const std::size_t blocks = below(4) == 0 ? 1 + 2 * pool_.chunk_bytes() / 2880 : 4;
        return 2880 * (1 + below(blocks));
    }
    std::size_t random_frame() {
        constexpr std::size_t kUpTo[] = {16, 3000, 5000, 70'000, 180'000};
        const std::size_t upto = kUpTo[below(5)];
        return std::max<std::size_t>(1, (1 + below(upto)) / pixel_bytes_) * pixel_bytes_;
    }

    void begin() {
        const std::size_t header = random_header();
        placer_.start(header);
        next_file(header);
    }
    void next_file(std::size_t header) {
        cube_ = static_cast<std::uint32_t>(expected_.size());
        placer_.set_cube(cube_);
        expected_.push_back({header, {}, {}, 0});
    }

    // A frame in the pieces, as the capture thread converts it.
    bool reserve_and_fill(Bytes& frame) {
        frame.resize(random_frame());
        for (std::byte& byte : frame) byte = static_cast<std::byte>(random_());
        if (!placer_.reserve(frame.size())) {
            disk_.write(1 + below(3));
            return false;
        }
        std::size_t done = 0;
        for (const FramePlacer::Piece& piece : placer_.pieces()) {
            REQUIRE(piece.bytes % pixel_bytes_ == 0);
            REQUIRE(reinterpret_cast<std::uintptr_t>(piece.at) % pixel_bytes_ == 0);
            std::memcpy(piece.at, frame.data() + done, piece.bytes);
            done += piece.bytes;
        }
        REQUIRE(done == frame.size());
        return true;
    }

    void commit(const Bytes& frame) {
        Expected& file = expected_.back();
        FrameRow row;
        row.frame = static_cast<std::int32_t>(file.frames++);
        row.cnt0 = static_cast<std::int64_t>(random_());
        placer_.commit(row, fits_sum(frame.data(), frame.size()));
        file.data.insert(file.data.end(), frame.begin(), frame.end());
        file.journal.resize(file.journal.size() + kFrameRowBytes);
        row.pack(file.journal.data() + file.journal.size() - kFrameRowBytes);
    }

    void step() {
        Bytes frame;
        const std::size_t choice = below(100);
        if (choice < 10) {
            placer_.flush();
        } else if (choice < 20) {
            disk_.write(below(4));
        } else if (choice < 25) {
            reserve_and_fill(frame);  // torn: forgotten
        } else if (choice < 27) {
            finish_file();
            begin();
        } else if (choice < 31) {
            if (expected_.back().frames > 0 && reserve_and_fill(frame)) split(frame);
        } else if (reserve_and_fill(frame)) {
            commit(frame);
        }
    }

    void split(const Bytes& frame) {
        const std::size_t header = random_header();
        while (!placer_.split(header)) disk_.write(1 + below(2));
        next_file(header);
        if (below(3) == 0) placer_.flush();  // nothing of the new file yet: no effect
        commit(frame);
    }

    void finish_file() {
        placer_.end();
        CHECK_FALSE(placer_.in_cube());
        CHECK_FALSE(placer_.has_unflushed());
    }

    void check() {
        CHECK(disk_.n_files() == expected_.size());
        for (std::uint32_t cube = 0; cube < expected_.size(); ++cube) {
            const Expected& want = expected_[cube];
            const Disk::File& got = disk_.file(cube);
            CHECK(got.ends == 1);
            CHECK(got.rows == want.frames);
            CHECK(got.journal == want.journal);
            if (want.frames == 0) {
                CHECK(got.bytes.empty());
                continue;
            }
            const std::size_t end = want.header_bytes + want.data.size();
            REQUIRE(got.bytes.size() == page_ceil(end));
            CHECK(
                std::equal(want.data.begin(), want.data.end(),
                           got.bytes.begin() + static_cast<std::ptrdiff_t>(want.header_bytes)));
            CHECK(std::all_of(got.bytes.begin() + static_cast<std::ptrdiff_t>(end),
                              got.bytes.end(), [](std::byte b) { return b == std::byte{0}; }));
            CHECK(got.sum == fits_sum(want.data.data(), want.data.size()));
        }
    }

    // Every chunk is free or kept by the placer for later; with all of them a frame of the
    // whole memory finds room.
    void check_chunks() {
        CHECK(disk_.held() == 0);
        placer_.start(2880);
        CHECK(placer_.reserve(pool_.count() * pool_.chunk_bytes() - 2880));
        CHECK(pool_.free.size() == 0);
        CHECK_FALSE(placer_.reserve(pool_.count() * pool_.chunk_bytes() - 2880 + 1));
    }

    std::mt19937 random_;
    ChunkPool pool_{std::size_t{1} << 20};
    Disk disk_;
    FramePlacer placer_;
    std::size_t pixel_bytes_ = 1;
    std::uint32_t cube_ = 0;
    std::vector<Expected> expected_;
};

void place(FramePlacer& placer, const Bytes& frame) {
    REQUIRE(placer.reserve(frame.size()));
    std::size_t done = 0;
    for (const FramePlacer::Piece& piece : placer.pieces()) {
        std::memcpy(piece.at, frame.data() + done, piece.bytes);
        done += piece.bytes;
    }
}

void add(FramePlacer& placer, const Bytes& frame) {
    place(placer, frame);
    placer.commit(FrameRow{}, fits_sum(frame.data(), frame.size()));
}

}  // namespace

TEST_CASE("whatever the sizes and moments, files hold the frames, rows and sums committed") {
    for (unsigned seed = 0; seed < 20; ++seed) {
        CAPTURE(seed);
        Scenario(seed).run();
    }
}

TEST_CASE("a file of chunks filled to the last byte ends with them") {
    ChunkPool pool(1);
    FramePlacer placer(pool);
    Disk disk(pool);
    placer.start(2880);
    placer.set_cube(7);
    add(placer, Bytes(pool.chunk_bytes() - 2880, std::byte{1}));
    CHECK_FALSE(placer.has_unflushed());
    CHECK(placer.handed_over() == pool.chunk_bytes());
    placer.flush();
    placer.end();
    disk.write();
    CHECK(disk.file(7).bytes.size() == pool.chunk_bytes());
    CHECK(disk.file(7).rows == 1);
    CHECK(disk.file(7).ends == 1);
}

TEST_CASE("a file without a frame is an end mark alone") {
    ChunkPool pool(1);
    FramePlacer placer(pool);
    Disk disk(pool);
    for (const std::size_t header : {std::size_t{2880}, 2 * pool.chunk_bytes()}) {
        placer.start(header);
        placer.flush();
        placer.end();
        placer.start(header);
        REQUIRE(placer.reserve(8));
        placer.flush();
        placer.end();
    }
    Delivery delivery;
    for (int k = 0; k < 4; ++k) {
        REQUIRE(pool.full.try_pop(delivery));
        CHECK(delivery.chunk == nullptr);
    }
    CHECK_FALSE(pool.full.try_pop(delivery));
}

TEST_CASE("more small frames than a chunk has rows for reach the disk, each with its row") {
    ChunkPool pool(1);
    FramePlacer placer(pool);
    Disk disk(pool);
    placer.start(2880);
    const std::uint32_t frames = 3 * pool.max_rows() + 1;
    Bytes all;
    for (std::uint32_t k = 0; k < frames; ++k) {
        const Bytes frame(2, static_cast<std::byte>(k));
        add(placer, frame);
        all.insert(all.end(), frame.begin(), frame.end());
        disk.write();
    }
    placer.end();
    disk.write();
    CHECK(disk.file(0).rows == frames);
    CHECK(disk.file(0).sum == fits_sum(all.data(), all.size()));
    CHECK(std::equal(all.begin(), all.end(), disk.file(0).bytes.begin() + 2880));
}

TEST_CASE("a split that finds no chunk changes nothing and works when one is free") {
    ChunkPool pool(1);
    FramePlacer placer(pool);
    Disk disk(pool);
    placer.start(2880);
    const Bytes first(100, std::byte{1});
    add(placer, first);
    // The second frame leaves one chunk short of a second file.
    const Bytes second((pool.count() / 2) * pool.chunk_bytes(), std::byte{2});
    place(placer, second);
    CHECK_FALSE(placer.split(2880));
    CHECK_FALSE(placer.split(2880));
    CHECK(placer.in_cube());
    Delivery delivery;
    CHECK_FALSE(pool.full.try_pop(delivery));
    placer.commit(FrameRow{}, fits_sum(second.data(), second.size()));
    disk.write();
    const Bytes third(64, std::byte{3});
    place(placer, third);
    REQUIRE(placer.split(2880));
    placer.set_cube(1);
    placer.commit(FrameRow{}, fits_sum(third.data(), third.size()));
    placer.end();
    disk.write();
    CHECK(disk.file(0).rows == 2);
    CHECK(disk.file(0).bytes.size() == page_ceil(2880 + 100 + second.size()));
    CHECK(disk.file(1).rows == 1);
    CHECK(std::equal(third.begin(), third.end(), disk.file(1).bytes.begin() + 2880));
}

TEST_CASE("the number of chunks asked for is enough for a frame that starts a new file") {
    ChunkPool pool(std::size_t{4} << 20);
    std::mt19937 random(5);
    for (int k = 0; k < 25; ++k) {
        const std::size_t header = 2880 * (1 + random() % 60);
        const std::size_t frame = 1 + random() % (std::size_t{3} << 19);
        FramePlacer placer(pool);
        const std::size_t needed = placer.chunks_for(header, frame);
        if (needed > pool.count()) continue;
        std::vector<Chunk*> withheld;
        Chunk* chunk = nullptr;
        while (pool.free.size() > needed && pool.free.try_pop(chunk)) withheld.push_back(chunk);
        Disk disk(pool);
        placer.start(header);
        const Bytes bytes(frame, std::byte{1});
        for (int frames = 0; frames < 4; ++frames) {
            add(placer, bytes);
            disk.write();
        }
        place(placer, bytes);
        CHECK(placer.split(header));
        placer.set_cube(1);
        placer.commit(FrameRow{}, fits_sum(bytes.data(), bytes.size()));
        placer.end();
        disk.write();
        // Back to the pool with what the placer keeps.
        placer.start(0);
        REQUIRE(placer.reserve(needed * pool.chunk_bytes()));
        placer.commit(FrameRow{}, 0);
        disk.file(0).ends = disk.file(1).ends = 0;
        placer.set_cube(2);
        placer.end();
        disk.write();
        for (Chunk* back : withheld) pool.free.try_push(back);
        REQUIRE(pool.free.size() == pool.count());
    }
}
