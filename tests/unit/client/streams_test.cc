// How versions are divided among connections, and what connections fill together.
#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "client/calls/stream_trial.h"
#include "client/worker/joint_tensors.h"
#include "client/worker/part_cursor.h"
#include "common/tensor/stream_shares.h"
#include "common/wire/digest.h"
#include "tests/support/status_matchers.h"

namespace refit {
namespace {

using Parts = std::vector<TensorPart>;

TensorPart Whole(const char* name, Shape shape) { return TensorPart::Whole({name, DType::kF32, std::move(shape)}); }

// Scalars, empty tensors, tensors with one row, and boxes.
Parts OddParts() {
  Parts parts = {Whole("scalar", {}),
                 Whole("empty", {0, 7}),
                 Whole("row", {1, 1, 8 << 20}),
                 Whole("three", {3, 5 << 20}),
                 Whole("uneven", {1021, 9, 1000}),
                 Whole("small", {7, 7}),
                 Whole("few rows", {2, 6 << 20})};
  parts.push_back({{"box", DType::kBF16, {100, 64, 4096}}, {{10, 0, 1}, {79, 64, 4000}}});
  return parts;
}

TEST(StreamShares, RunsTileEachPartInOrderAndWeighAlike) {
  const Parts parts = OddParts();
  for (const size_t streams : {1, 2, 3, 4, 8}) {
    const auto runs = DivideAmong(streams, parts);
    std::vector<uint64_t> sums(streams, 0);
    for (size_t i = 0; i < parts.size(); ++i) {
      uint64_t end = 0;
      std::vector<Box> boxes;
      for (const StreamRun& run : runs[i]) {
        EXPECT_EQ(run.begin, end);
        EXPECT_EQ(run.end - run.begin, (TensorPart{parts[i].tensor, run.box}).ByteSize());
        ASSERT_OK(Validate(run.box, parts[i].tensor.shape));
        end = run.end;
        sums[run.stream] += run.end - run.begin;
      }
      EXPECT_EQ(end, parts[i].ByteSize()) << parts[i].ToString();
    }
    const auto [least, most] = std::minmax_element(sums.begin(), sums.end());
    EXPECT_LE(*most - *least, uint64_t{40} << 20);
  }
}

TEST(StreamShares, UndividedIfAskedFor) {
  for (const auto& runs : DivideAmong(4, OddParts(), /*whole=*/true)) EXPECT_LE(runs.size(), 1u);
}

TEST(PartCursor, SlicesFollowEachOther) {
  const Parts parts = OddParts();
  for (const uint64_t bytes : {uint64_t{1} << 20, uint64_t{5} << 20, uint64_t{1} << 40}) {
    PartCursor cursor(parts);
    std::vector<uint64_t> ends(parts.size(), 0);
    uint64_t left = cursor.left_bytes();
    size_t steps = 0;
    while (left > 0) {
      ASSERT_LT(++steps, 5000u);
      const std::vector<PartSlice> slices = cursor.Take(bytes);
      for (size_t i = 0; i < slices.size(); ++i) {
        if (i > 0) {
          EXPECT_GT(slices[i].index, slices[i - 1].index);
        }
        EXPECT_EQ(slices[i].begin, ends[slices[i].index]);
        ends[slices[i].index] += slices[i].part.ByteSize();
        left -= slices[i].part.ByteSize();
      }
      EXPECT_EQ(cursor.left_bytes(), left);
    }
    for (size_t i = 0; i < parts.size(); ++i) EXPECT_EQ(ends[i], parts[i].ByteSize());
  }
}

TEST(StreamTrial, DoublesAsLongAsThatPays) {
  StreamTrial trial;
  EXPECT_EQ(trial.streams(), 1u);
  trial.Note(1, 100);
  EXPECT_EQ(trial.streams(), 2u);
  trial.Note(1, 500);  // of another number: it says nothing
  EXPECT_EQ(trial.streams(), 2u);
  trial.Note(2, 190);
  EXPECT_EQ(trial.streams(), 4u);
  EXPECT_FALSE(trial.is_settled());
  trial.Note(4, 200);
  EXPECT_TRUE(trial.is_settled());
  EXPECT_EQ(trial.streams(), 2u);
}

TEST(StreamTrial, HasAnEnd) {
  StreamTrial trial;
  double rate = 1;
  while (!trial.is_settled()) trial.Note(trial.streams(), rate *= 2);
  EXPECT_EQ(trial.streams(), 8u);
}

class CountingSink : public TensorSink {
 public:
  explicit CountingSink(const Parts& parts) {
    for (const TensorPart& part : parts) memory.emplace_back(part.ByteSize());
  }
  absl::Status Begin(const VersionSummary&, const Parts&) override { return absl::OkStatus(); }
  absl::StatusOr<absl::Span<std::byte>> Place(size_t index) override {
    EXPECT_EQ(index, placed++);
    if (index == 2) {
      EXPECT_GE(done, 1u);
    }
    return absl::MakeSpan(memory[index]);
  }
  absl::Status Done(size_t index) override {
    EXPECT_EQ(index, done++);
    return absl::OkStatus();
  }
  std::vector<std::vector<std::byte>> memory;
  size_t placed = 0;
  size_t done = 0;
};

// The third tensor gets no memory before the first is done.
TEST(JointTensors, OneConnectionIsHeldBackByTheOthers) {
  const Parts parts = {Whole("a", {256}), Whole("b", {256}), Whole("c", {256}), Whole("empty", {0})};
  CountingSink sink(parts);
  JointTensors joint(sink, parts, 1 << 20, /*most_ahead_bytes=*/1024);
  joint.Expect(2);
  const auto receive = [&](size_t tensor) {
    EXPECT_OK(joint.MemoryOf(tensor));
    EXPECT_OK(joint.PartDone(tensor, parts[tensor].ByteSize()));
  };
  std::thread fast([&] {
    receive(2);
    receive(1);
    joint.Ended(absl::OkStatus());
  });
  std::thread slow([&] {
    receive(0);
    joint.Ended(absl::OkStatus());
  });
  EXPECT_OK(joint.Serve([] { FAIL(); }));
  fast.join();
  slow.join();
  EXPECT_EQ(sink.done, parts.size());
  EXPECT_EQ(joint.digests()[3], TensorDigest({}));
}

TEST(JointTensors, AnErrorEndsAllConnections) {
  const Parts parts = {Whole("a", {256}), Whole("b", {256})};
  CountingSink sink(parts);
  JointTensors joint(sink, parts, 1 << 20);
  joint.Expect(2);
  absl::Status other;
  std::thread failing([&] { joint.Ended(absl::DataLossError("wrong bytes")); });
  std::thread waiting([&] {
    while (other.ok()) other = joint.MemoryOf(0).status();
    joint.Ended(other);
  });
  int cancelled = 0;
  EXPECT_THAT(joint.Serve([&] { ++cancelled; }), StatusIs(absl::StatusCode::kDataLoss));
  failing.join();
  waiting.join();
  EXPECT_EQ(cancelled, 1);
  EXPECT_EQ(other.code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace refit
