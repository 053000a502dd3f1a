#include "refit/box.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <random>
#include <string>

namespace refit {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
constexpr int64_t kMin = std::numeric_limits<int64_t>::min();

int64_t Below(std::mt19937& random, int64_t end) { return static_cast<int64_t>(random() % end); }

Shape RandomShape(std::mt19937& random, size_t rank, int64_t least = 1, int64_t most = 5) {
  Shape shape;
  for (size_t d = 0; d < rank; ++d) shape.push_back(least + Below(random, most - least + 1));
  return shape;
}

Box RandomBox(std::mt19937& random, const Shape& shape) {
  Box box;
  for (const int64_t size : shape) {
    box.offsets.push_back(Below(random, size + 1));
    box.sizes.push_back(Below(random, size - box.offsets.back() + 1));
  }
  return box;
}

// The places of the box's elements in the tensor, in row-major order, by counting through the whole tensor.
std::vector<int64_t> PlacesOf(const Shape& shape, const Box& box) {
  std::vector<int64_t> places;
  const int64_t elements = ElementCount(WholeBox(shape));
  for (int64_t place = 0; place < elements; ++place) {
    int64_t rest = place;
    bool inside = true;
    for (size_t d = shape.size(); d-- > 0;) {
      const int64_t index = rest % shape[d];
      rest /= shape[d];
      inside = inside && index >= box.offsets[d] && index < box.offsets[d] + box.sizes[d];
    }
    if (inside) places.push_back(place);
  }
  return places;
}

// --- Validate

TEST(BoxTest, BoxesWithinTheShapeAreValid) {
  EXPECT_TRUE(Validate(Box{}, {}).ok());
  EXPECT_TRUE(Validate(WholeBox({3, 4}), {3, 4}).ok());
  EXPECT_TRUE(Validate({{3, 4}, {0, 0}}, {3, 4}).ok());
  EXPECT_TRUE(Validate({{2, 0}, {1, 4}}, {3, 4}).ok());
  EXPECT_TRUE(Validate({{0, 1}, {0, 2}}, {0, 3}).ok());
  EXPECT_TRUE(Validate({{kMax}, {0}}, {kMax}).ok());
  EXPECT_TRUE(Validate({{1}, {kMax - 1}}, {kMax}).ok());
}

TEST(BoxTest, OthersAreRefused) {
  for (const Box& box :
       {Box{}, Box{{0}, {3}}, Box{{0, 0}, {3}}, Box{{0}, {3, 4}}, Box{{0, 0, 0}, {3, 4, 1}}, Box{{-1, 0}, {1, 4}},
        Box{{0, 0}, {3, -1}}, Box{{1, 0}, {3, 4}}, Box{{0, 5}, {3, 0}}, Box{{4, 0}, {-1, 4}}, Box{{kMax, 0}, {kMax, 4}},
        Box{{kMax, 0}, {1, 4}}, Box{{1, 0}, {kMax, 4}}, Box{{kMin, 0}, {kMin, 4}}, Box{{kMin, 0}, {kMax, 4}},
        Box{{2, 0}, {kMin, 4}}}) {
    const absl::Status status = Validate(box, {3, 4});
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr("[3, 4]"));
  }
  EXPECT_FALSE(Validate({{0}, {1}}, {}).ok());
  EXPECT_FALSE(Validate({{1}, {kMax}}, {kMax}).ok());
  EXPECT_THAT(std::string(Validate({{0, 2}, {3, 3}}, {3, 4}).message()),
              HasSubstr("offset 2 and size 3 in dimension 1"));
}

// --- the small ones

TEST(BoxTest, CountsAndPrints) {
  EXPECT_EQ(ElementCount(Box{}), 1);
  EXPECT_EQ(ElementCount(Box{{5, 0}, {2, 3}}), 6);
  EXPECT_EQ(ElementCount(Box{{0, 0, 0}, {kMax, 0, kMax}}), 0);
  EXPECT_EQ(ToString(Box{}), "[]");
  EXPECT_EQ(ToString(Box{{0, 352}, {16, 352}}), "[0:16, 352:704]");
  EXPECT_TRUE(IsWhole({}, {}));
  EXPECT_TRUE(IsWhole(WholeBox({3, 4}), {3, 4}));
  EXPECT_FALSE(IsWhole({{0, 0}, {3, 3}}, {3, 4}));
}

TEST(BoxTest, Intersects) {
  const Box box{{2, 2}, {4, 4}};
  EXPECT_EQ(Intersection(box, box), box);
  EXPECT_EQ(Intersection(box, {{0, 4}, {3, 9}}), (Box{{2, 4}, {1, 2}}));
  EXPECT_EQ(Intersection(box, {{6, 2}, {1, 4}}), std::nullopt);
  EXPECT_EQ(Intersection(box, {{3, 3}, {0, 1}}), std::nullopt);
  EXPECT_EQ(Intersection({}, {}), Box{});
}

TEST(BoxTest, PartsKnowTheirSize) {
  const TensorPart part{{"w", DType::kBF16, {4, 6}}, {{1, 0}, {2, 6}}};
  EXPECT_FALSE(part.is_whole());
  EXPECT_EQ(part.ByteSize(), 24u);
  EXPECT_EQ(part.spec(), (TensorSpec{"w", DType::kBF16, {2, 6}}));
  EXPECT_THAT(part.ToString(), HasSubstr("w BF16 [4, 6]"));
  EXPECT_THAT(part.ToString(), HasSubstr("[1:3, 0:6]"));
  const TensorPart whole = TensorPart::Whole(part.tensor);
  EXPECT_TRUE(whole.is_whole());
  EXPECT_EQ(whole.ByteSize(), 48u);
  EXPECT_EQ(whole.ToString(), "w BF16 [4, 6]");
  EXPECT_EQ(TensorPart::Whole({"scalar", DType::kF32, {}}).ByteSize(), 4u);
}

// --- Cut

std::vector<int64_t> SizesOfCuts(int64_t size, Split split, uint64_t parts) {
  std::vector<int64_t> sizes;
  int64_t end = 10;
  for (uint64_t part = 0; part < parts; ++part) {
    const Box cut = Cut({{7, 10}, {3, size}}, 1, split, part, parts);
    EXPECT_EQ(cut.offsets, (Shape{7, end}));
    EXPECT_EQ(cut.sizes[0], 3);
    sizes.push_back(cut.sizes[1]);
    end += cut.sizes[1];
  }
  EXPECT_EQ(end, 10 + size);
  return sizes;
}

TEST(BoxTest, CutsBalanced) {
  EXPECT_EQ(SizesOfCuts(12, Split::kBalanced, 4), (std::vector<int64_t>{3, 3, 3, 3}));
  EXPECT_EQ(SizesOfCuts(13, Split::kBalanced, 4), (std::vector<int64_t>{4, 3, 3, 3}));
  EXPECT_EQ(SizesOfCuts(15, Split::kBalanced, 4), (std::vector<int64_t>{4, 4, 4, 3}));
  EXPECT_EQ(SizesOfCuts(2, Split::kBalanced, 4), (std::vector<int64_t>{1, 1, 0, 0}));
  EXPECT_EQ(SizesOfCuts(0, Split::kBalanced, 2), (std::vector<int64_t>{0, 0}));
}

TEST(BoxTest, CutsAsTorchChunkDoes) {
  EXPECT_EQ(SizesOfCuts(12, Split::kCeil, 4), (std::vector<int64_t>{3, 3, 3, 3}));
  EXPECT_EQ(SizesOfCuts(13, Split::kCeil, 4), (std::vector<int64_t>{4, 4, 4, 1}));
  EXPECT_EQ(SizesOfCuts(9, Split::kCeil, 4), (std::vector<int64_t>{3, 3, 3, 0}));
  EXPECT_EQ(SizesOfCuts(2, Split::kCeil, 4), (std::vector<int64_t>{1, 1, 0, 0}));
  EXPECT_EQ(SizesOfCuts(5, Split::kCeil, 6), (std::vector<int64_t>{1, 1, 1, 1, 1, 0}));
  EXPECT_EQ(SizesOfCuts(0, Split::kCeil, 2), (std::vector<int64_t>{0, 0}));
}

TEST(BoxTest, CutsOfAnySizeTileTheDimension) {
  for (const Split split : {Split::kBalanced, Split::kCeil}) {
    for (int64_t size = 0; size < 40; ++size) {
      for (uint64_t parts = 1; parts < 45; ++parts) {
        const auto sizes = SizesOfCuts(size, split, parts);  // looks for gaps itself
        EXPECT_TRUE(std::is_sorted(sizes.rbegin(), sizes.rend())) << size << " by " << parts;
      }
    }
  }
}

TEST(BoxTest, CutsOfHugeNumbersDoNotOverflow) {
  for (const Split split : {Split::kBalanced, Split::kCeil}) {
    for (const int64_t size : {int64_t{0}, int64_t{1}, int64_t{5}, kMax - 1, kMax}) {
      for (const uint64_t parts : {uint64_t{1}, uint64_t{2}, uint64_t{7}, uint64_t{kMax}, UINT64_MAX}) {
        for (const uint64_t part : {uint64_t{0}, parts / 2, parts - 1}) {
          const Box cut = Cut({{0}, {size}}, 0, split, part, parts);
          EXPECT_TRUE(Validate(cut, {size}).ok()) << size << ", " << part << " of " << parts << ": " << ToString(cut);
        }
      }
    }
  }
  EXPECT_EQ(Cut({{0}, {kMax}}, 0, Split::kCeil, 1, 2), (Box{{kMax / 2 + 1}, {kMax / 2}}));
  EXPECT_EQ(Cut({{0}, {kMax}}, 0, Split::kBalanced, 1, 2), (Box{{kMax / 2 + 1}, {kMax / 2}}));
}

TEST(BoxTest, CutsNest) {
  const Box half = Cut(WholeBox({10}), 0, Split::kCeil, 1, 2);
  EXPECT_EQ(Cut(half, 0, Split::kCeil, 1, 2), (Box{{8}, {2}}));
}

// --- CheckTiling

TEST(TilingTest, OfTheWhole) {
  EXPECT_FALSE(CheckTiling({}, {Box{}}).has_value());
  EXPECT_FALSE(CheckTiling({3, 4}, {WholeBox({3, 4})}).has_value());
  EXPECT_FALSE(CheckTiling({3, 0}, {}).has_value());
  EXPECT_FALSE(CheckTiling({kMax}, {{{0}, {kMax - 1}}, {{kMax - 1}, {1}}}).has_value());
}

TEST(TilingTest, FindsWhatIsMissing) {
  const auto missing = [](const Shape& shape, const std::vector<Box>& boxes) {
    const auto error = CheckTiling(shape, boxes);
    return error.has_value() ? error->missing : std::nullopt;
  };
  EXPECT_EQ(missing({}, {}), Box{});
  EXPECT_EQ(missing({3, 4}, {}), WholeBox({3, 4}));
  EXPECT_EQ(missing({3, 4}, {{{0, 0}, {3, 3}}}), (Box{{0, 3}, {3, 1}}));
  EXPECT_EQ(missing({4}, {{{2}, {2}}, {{0}, {1}}}), (Box{{1}, {1}}));
  // The middle of nine.
  std::vector<Box> boxes;
  for (int64_t i = 0; i < 9; ++i) {
    if (i != 4) boxes.push_back({{i / 3, i % 3}, {1, 1}});
  }
  EXPECT_EQ(missing({3, 3}, boxes), (Box{{1, 1}, {1, 1}}));
}

TEST(TilingTest, FindsOverlaps) {
  const auto overlap = [](const Shape& shape, const std::vector<Box>& boxes) {
    const auto error = CheckTiling(shape, boxes);
    return error.has_value() ? error->overlap : std::nullopt;
  };
  using Pair = std::pair<size_t, size_t>;
  EXPECT_EQ(overlap({}, {Box{}, Box{}}), Pair(0, 1));
  EXPECT_EQ(overlap({3, 4}, {WholeBox({3, 4}), WholeBox({3, 4})}), Pair(0, 1));
  EXPECT_EQ(overlap({3, 4}, {{{2, 0}, {1, 4}}, {{0, 0}, {2, 2}}, {{0, 1}, {2, 3}}}), Pair(1, 2));
  // As many elements as the tensor has, and still no tiling.
  EXPECT_EQ(overlap({4}, {{{0}, {2}}, {{1}, {2}}}), Pair(0, 1));
}

// Cuts one of the boxes in two, time and again.
std::vector<Box> RandomTiling(std::mt19937& random, const Shape& shape) {
  std::vector<Box> boxes = {WholeBox(shape)};
  for (int64_t cuts = Below(random, 12); cuts > 0; --cuts) {
    const Box box = boxes[Below(random, boxes.size())];
    const size_t d = Below(random, shape.size());
    if (box.sizes[d] < 2) continue;
    const int64_t at = 1 + Below(random, box.sizes[d] - 1);
    Box first = box;
    Box second = box;
    first.sizes[d] = at;
    second.offsets[d] += at;
    second.sizes[d] -= at;
    *std::find(boxes.begin(), boxes.end(), box) = first;
    boxes.push_back(second);
  }
  std::shuffle(boxes.begin(), boxes.end(), random);
  return boxes;
}

TEST(TilingTest, OfRandomTilings) {
  std::mt19937 random(1);
  for (int round = 0; round < 1000; ++round) {
    const Shape shape = RandomShape(random, 1 + round % 4, 1, 6);
    std::vector<Box> boxes = RandomTiling(random, shape);
    ASSERT_FALSE(CheckTiling(shape, boxes).has_value());

    const Box lost = boxes.back();
    boxes.pop_back();
    const auto gap = CheckTiling(shape, boxes);
    ASSERT_TRUE(gap.has_value() && gap->missing.has_value());
    EXPECT_EQ(Intersection(*gap->missing, lost), gap->missing);  // it lies in what was taken away

    boxes.push_back(lost);
    const size_t twice = Below(random, boxes.size());
    boxes.push_back(boxes[twice]);
    const auto overlap = CheckTiling(shape, boxes);
    ASSERT_TRUE(overlap.has_value() && overlap->overlap.has_value());
    EXPECT_EQ(*overlap->overlap, std::pair(twice, boxes.size() - 1));
  }
}

// --- BoxRuns

TEST(BoxRunsTest, WholeTensorsAreOneRun) {
  for (const Shape& shape : {Shape{}, Shape{5}, Shape{2, 3, 4}}) {
    const BoxRuns runs(shape, WholeBox(shape));
    EXPECT_TRUE(runs.is_contiguous());
    EXPECT_EQ(runs.offset(), 0);
    EXPECT_EQ(runs.run_length(), ElementCount(WholeBox(shape)));
  }
}

TEST(BoxRunsTest, RunsAreAsLongAsCanBe) {
  const Shape shape = {4, 5, 6};
  const auto length = [&](const Box& box) { return BoxRuns(shape, box).run_length(); };
  EXPECT_EQ(length({{1, 0, 0}, {2, 5, 6}}), 60);
  EXPECT_EQ(length({{0, 1, 0}, {4, 3, 6}}), 18);
  EXPECT_EQ(length({{0, 0, 2}, {4, 5, 3}}), 3);
  EXPECT_TRUE(BoxRuns(shape, {{1, 0, 0}, {2, 5, 6}}).is_contiguous());
  EXPECT_EQ(BoxRuns(shape, {{1, 0, 0}, {2, 5, 6}}).offset(), 30);
  EXPECT_TRUE(BoxRuns(shape, {{3, 2, 0}, {1, 2, 6}}).is_contiguous());  // one index of the outermost only
  EXPECT_FALSE(BoxRuns(shape, {{0, 1, 0}, {2, 2, 6}}).is_contiguous());
}

TEST(BoxRunsTest, AgreeWithCounting) {
  std::mt19937 random(2);
  for (int round = 0; round < 3000; ++round) {
    const Shape shape = RandomShape(random, round % 6);
    const Box box = RandomBox(random, shape);
    const std::vector<int64_t> expected = PlacesOf(shape, box);
    const auto count = static_cast<int64_t>(expected.size());
    ASSERT_EQ(ElementCount(box), count);
    const int64_t first = Below(random, count + 1);
    const int64_t last = first + Below(random, count - first + 1);

    const BoxRuns runs(shape, box);
    std::vector<int64_t> places;
    int64_t visits = 0;
    runs.ForEach(first, last - first, [&](int64_t place, int64_t length) {
      ASSERT_GT(length, 0);
      ASSERT_LE(length, runs.run_length());
      for (int64_t i = 0; i < length; ++i) places.push_back(place + i);
      ++visits;
    });
    ASSERT_EQ(places, std::vector<int64_t>(expected.begin() + first, expected.begin() + last))
        << ToString(box) << " of " << ToString(shape) << ", elements " << first << " to " << last;
    if (runs.is_contiguous() && last > first) {
      EXPECT_EQ(visits, 1);
      EXPECT_EQ(places[0], runs.offset() + first);
    }
  }
}

}  // namespace
}  // namespace refit
