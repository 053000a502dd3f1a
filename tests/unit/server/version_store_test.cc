// What is kept, what goes, and who is told.
#include "server/store/version_store.h"

#include <gtest/gtest.h>

#include <cstring>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/wire/digest.h"
#include "server/push/version_builder.h"
#include "tests/support/status_matchers.h"

namespace refit {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr uint64_t kKiB = 1024;

// A tensor of `kib` KiB that passes unchanged.
std::vector<TensorSpec> Weights(int64_t kib = 4) { return {{"w", DType::kF32, {kib, 256}}}; }

PublishOptions Options(uint64_t version, std::string model = "m") {
  PublishOptions options;
  options.model = std::move(model);
  options.version = version;
  return options;
}

v1::VersionSelector Number(uint64_t version) {
  v1::VersionSelector selector;
  selector.set_number(version);
  return selector;
}

StoreOptions SmallStore(uint64_t budget_kib = 1024, uint32_t retain = 2) {
  StoreOptions options;
  options.memory_budget_bytes = budget_kib * kKiB;
  options.retain_versions = retain;
  options.chunk_bytes = 4096;
  return options;
}

std::shared_ptr<Version> Push(VersionStore& store, uint64_t number, int64_t kib = 4) {
  auto builder = VersionBuilder::Open(store, Options(number), Weights(kib));
  EXPECT_OK(builder);
  if (!builder.ok()) return nullptr;
  const std::vector<std::byte> bytes(kib * kKiB, std::byte{static_cast<uint8_t>(number)});
  EXPECT_OK((*builder)->Append(0, 0, bytes));
  EXPECT_OK((*builder)->Commit());
  return (*builder)->version();
}

TEST(VersionStore, KeepsTheLastVersionsAndRetiresTheRest) {
  VersionStore store(SmallStore(1024, 2));
  for (uint64_t number = 1; number <= 4; ++number) Push(store, number);
  std::vector<v1::VersionState> states;
  for (const auto& version : store.List("m")) states.push_back(version->state());
  EXPECT_THAT(states, ::testing::ElementsAre(v1::VERSION_STATE_RETIRED, v1::VERSION_STATE_RETIRED,
                                             v1::VERSION_STATE_COMMITTED, v1::VERSION_STATE_COMMITTED));
  EXPECT_EQ(store.reserved_bytes(), 8 * kKiB);
  EXPECT_EQ((*store.Find("m", {}))->number(), 4u);
  EXPECT_THAT((*store.Find("m", Number(1)))->GetChunk(0, 0),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("m/1 is retired")));
}

TEST(VersionStore, PrefaultsForTheNextVersionAsFarAsTheBudgetGoes) {
  for (const auto& [budget_kib, idle_kib] : {std::pair{8 * 1024, 4 * 1024}, std::pair{7 * 1024, 0}}) {
    StoreOptions options = SmallStore(budget_kib, 1);
    options.prefault = true;
    VersionStore store(options);
    Push(store, 1, 4 * 1024);
    const absl::Time deadline = absl::Now() + absl::Seconds(10);
    while (idle_kib > 0 && store.memory().idle_bytes() == 0 && absl::Now() < deadline) std::this_thread::yield();
    EXPECT_EQ(store.memory().idle_bytes(), idle_kib * kKiB);
    ASSERT_NE(Push(store, 2, 3 * 1024), nullptr);  // it takes nothing from the budget
  }
}

TEST(VersionStore, PrefaultingChangesNoByteWhateverBecomesOfTheVersion) {
  StoreOptions options = SmallStore(64 * 1024, 1);
  options.prefault = true;
  VersionStore store(options);
  for (uint64_t number = 1; number <= 6; ++number) {
    const std::shared_ptr<Version> version = Push(store, number, 9 * 1024);
    const std::vector<std::byte> bytes(9 * 1024 * kKiB, std::byte{static_cast<uint8_t>(number)});
    EXPECT_EQ(version->tensor_digest(0), DigestTensor(bytes, 4096));
    auto aborted = VersionBuilder::Open(store, Options(number + 1), Weights(16 * 1024));
    ASSERT_OK(aborted);
    (*aborted)->Abort("while its memory is being had");
  }
}

TEST(VersionStore, GivesUpOlderCommittedVersionsForMemoryButNeverTheNewest) {
  VersionStore store(SmallStore(/*budget_kib=*/12, /*retain=*/3));
  auto first = Push(store, 1);
  auto second = Push(store, 2);
  auto third = Push(store, 3, 8);  // 4 + 4 + 8 do not fit in 12: the oldest goes
  EXPECT_EQ(first->state(), v1::VERSION_STATE_RETIRED);
  EXPECT_EQ(second->state(), v1::VERSION_STATE_COMMITTED);
  EXPECT_THAT(
      VersionBuilder::Open(store, Options(4), Weights(8)),
      StatusIs(absl::StatusCode::kResourceExhausted, AllOf(HasSubstr("m/4 needs 8192 bytes"), HasSubstr("--memory"))));
  EXPECT_EQ(third->state(), v1::VERSION_STATE_COMMITTED);
  EXPECT_THAT(third->GetChunk(0, 0), IsOk());
}

TEST(VersionStore, RefusesAVersionLargerThanTheBudget) {
  VersionStore store(SmallStore(4));
  EXPECT_THAT(VersionBuilder::Open(store, Options(1), Weights(8)), StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_EQ(store.reserved_bytes(), 0u);
  EXPECT_TRUE(store.List("").empty());
}

TEST(VersionStore, NumbersGrow) {
  VersionStore store(SmallStore());
  Push(store, 5);
  EXPECT_THAT(VersionBuilder::Open(store, Options(5), Weights()),
              StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr("m/5 was committed before")));
  EXPECT_THAT(VersionBuilder::Open(store, Options(4), Weights()),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("newest committed version 5")));
  EXPECT_THAT(VersionBuilder::Open(store, Options(0), Weights()), StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(VersionStore, OneVersionOfAModelIsOpenAtATime) {
  VersionStore store(SmallStore());
  auto open = VersionBuilder::Open(store, Options(1), Weights());
  ASSERT_OK(open);
  EXPECT_THAT(VersionBuilder::Open(store, Options(1), Weights()), StatusIs(absl::StatusCode::kAlreadyExists));
  EXPECT_THAT(VersionBuilder::Open(store, Options(2), Weights()),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("m/1 is open")));
  EXPECT_OK(VersionBuilder::Open(store, Options(2, "other"), Weights()));
}

TEST(VersionStore, AnAbortedNumberIsFreeAgain) {
  VersionStore store(SmallStore());
  {
    auto builder = VersionBuilder::Open(store, Options(1), Weights());
    ASSERT_OK(builder);
  }  // destroyed before the commit
  auto aborted = store.Find("m", Number(1));
  ASSERT_OK(aborted);
  EXPECT_EQ((*aborted)->state(), v1::VERSION_STATE_ABORTED);
  EXPECT_THAT((*aborted)->Summary().abort_reason(), HasSubstr("went away"));
  EXPECT_EQ(store.reserved_bytes(), 0u);
  EXPECT_EQ(Push(store, 1)->state(), v1::VERSION_STATE_COMMITTED);
}

TEST(VersionStore, ARetiredVersionStaysForItsReadersUntilTheMemoryIsNeeded) {
  VersionStore store(SmallStore(/*budget_kib=*/12, /*retain=*/1));
  auto first = Push(store, 1);
  auto reader = std::make_unique<Version::Reader>(first);
  Push(store, 2);
  EXPECT_EQ(first->state(), v1::VERSION_STATE_RETIRED);
  EXPECT_THAT(first->GetChunk(0, 0), IsOk());  // still read
  Push(store, 3, 8);                           // needs the room
  EXPECT_THAT(first->GetChunk(0, 0), StatusIs(absl::StatusCode::kFailedPrecondition));

  auto third = *store.Find("m", Number(3));
  reader = std::make_unique<Version::Reader>(third);
  Push(store, 4, 4);
  EXPECT_THAT(third->GetChunk(0, 0), IsOk());
  reader.reset();  // the last one out
  EXPECT_THAT(third->GetChunk(0, 0), StatusIs(absl::StatusCode::kFailedPrecondition));
}

TEST(VersionStore, FindSaysWhatThereIs) {
  VersionStore store(SmallStore());
  EXPECT_THAT(store.Find("m", {}), StatusIs(absl::StatusCode::kNotFound, HasSubstr("no version of a model named 'm'")));
  auto open = VersionBuilder::Open(store, Options(7), Weights());
  ASSERT_OK(open);
  EXPECT_THAT(store.Find("m", {}), StatusIs(absl::StatusCode::kNotFound, HasSubstr("no committed version")));
  v1::VersionSelector latest;
  latest.set_latest(true);
  ASSERT_OK(store.Find("m", latest));
  EXPECT_THAT(store.Find("m", Number(8)), StatusIs(absl::StatusCode::kNotFound, HasSubstr("it has 7")));
}

TEST(VersionStore, RemembersAFewPastVersions) {
  StoreOptions options = SmallStore(1024, 1);
  options.remembered_versions = 3;
  VersionStore store(options);
  for (uint64_t number = 1; number <= 10; ++number) Push(store, number);
  EXPECT_EQ(store.List("m").size(), 4u);  // three retired ones and the newest
  EXPECT_THAT(VersionBuilder::Open(store, Options(2), Weights()), StatusIs(absl::StatusCode::kFailedPrecondition));
}

TEST(VersionStore, LimitsTheNumberOfModels) {
  StoreOptions options = SmallStore();
  options.max_models = 2;
  VersionStore store(options);
  auto a = VersionBuilder::Open(store, Options(1, "a"), Weights());
  auto b = VersionBuilder::Open(store, Options(1, "b"), Weights());
  ASSERT_OK(a);
  ASSERT_OK(b);
  EXPECT_THAT(VersionBuilder::Open(store, Options(1, "c"), Weights()), StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_THAT(VersionBuilder::Open(store, Options(1, ""), Weights()), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(VersionBuilder::Open(store, Options(1, std::string(300, 'x')), Weights()),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(VersionStore, TellsObserversOfEachChange) {
  VersionStore store(SmallStore(1024, 1));
  std::vector<std::string> changes;
  const uint64_t id = store.Observe("m", [&](const std::shared_ptr<Version>& version) {
    changes.push_back(absl::StrCat(version->number(), " ", v1::VersionState_Name(version->state())));
  });
  Push(store, 1);
  Push(store, 2);
  { auto aborted = VersionBuilder::Open(store, Options(3), Weights()); }
  store.StopObserving(id);
  Push(store, 4);
  EXPECT_THAT(changes,
              ::testing::ElementsAre("1 VERSION_STATE_OPEN", "1 VERSION_STATE_COMMITTED", "2 VERSION_STATE_OPEN",
                                     "2 VERSION_STATE_COMMITTED", "1 VERSION_STATE_RETIRED", "3 VERSION_STATE_OPEN",
                                     "3 VERSION_STATE_ABORTED"));
}

TEST(VersionBuilder, ChunksAreReadableAsSoonAsTheyAreConverted) {
  VersionStore store(SmallStore());
  auto builder = VersionBuilder::Open(store, Options(1), Weights(10));
  ASSERT_OK(builder);
  Version& version = *(*builder)->version();
  int woken = 0;
  EXPECT_NE(version.WaitForChunk(0, 0, [&] { ++woken; }), 0u);
  EXPECT_NE(version.WaitForChunk(0, 1, [&] { woken += 10; }), 0u);
  EXPECT_FALSE((*version.GetChunk(0, 0)).has_value());

  const std::vector<std::byte> bytes(4096, std::byte{7});
  ASSERT_OK((*builder)->Append(0, 0, bytes));
  EXPECT_EQ(woken, 1);
  EXPECT_EQ(version.WaitForChunk(0, 0, [] {}), 0u);
  const auto chunk = *version.GetChunk(0, 0);
  ASSERT_TRUE(chunk.has_value());
  EXPECT_EQ(chunk->bytes.size(), 4096u);
  EXPECT_EQ(chunk->digest, DigestBytes(bytes));
  EXPECT_FALSE(chunk->tensor_digest.has_value());
  EXPECT_THAT(version.GetTensor(0), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("1 of 3 chunks")));

  (*builder)->Abort("enough");
  EXPECT_EQ(woken, 11);
  EXPECT_THAT(version.GetChunk(0, 0), StatusIs(absl::StatusCode::kAborted, HasSubstr("enough")));
  EXPECT_THAT((*builder)->Append(0, 4096, bytes), StatusIs(absl::StatusCode::kAborted));
  EXPECT_THAT((*builder)->Commit(), StatusIs(absl::StatusCode::kFailedPrecondition));
}

TEST(VersionBuilder, RefusesGapsOverlapsAndWhatEndsBeyond) {
  VersionStore store(SmallStore());
  auto builder = VersionBuilder::Open(store, Options(1), Weights(4));
  ASSERT_OK(builder);
  const std::vector<std::byte> kib(1024);
  EXPECT_THAT((*builder)->Append(0, 1024, kib), StatusIs(absl::StatusCode::kOutOfRange, HasSubstr("a gap")));
  ASSERT_OK((*builder)->Append(0, 0, kib));
  EXPECT_THAT((*builder)->Append(0, 512, kib), StatusIs(absl::StatusCode::kOutOfRange, HasSubstr("an overlap")));
  EXPECT_THAT((*builder)->Append(0, 1024, absl::MakeConstSpan(kib).first(3)),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("whole number of elements")));
  EXPECT_THAT((*builder)->Append(0, 1024, std::vector<std::byte>(4096)),
              StatusIs(absl::StatusCode::kOutOfRange, HasSubstr("end beyond")));
  EXPECT_THAT((*builder)->Append(1, 0, kib),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("tensor number 1")));
  EXPECT_THAT((*builder)->Commit(),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("w F32 [4, 256] with 1024 of 4096")));
  EXPECT_EQ((*builder)->version()->state(), v1::VERSION_STATE_OPEN);
}

TEST(VersionBuilder, EmptyTensorsAndOnesNeedNoBytes) {
  VersionStore store(SmallStore());
  const std::vector<TensorSpec> native = {{"empty", DType::kBF16, {0, 7}},
                                          {"model.layers.0.moe.experts.down_projs", DType::kBF16, {2, 0, 3}}};
  PublishOptions options = Options(1);
  EXPECT_THAT(VersionBuilder::Open(store, options, native),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("version m/1 would hold nothing"), HasSubstr("such as empty BF16 [0, 7]"))));
  options.allow_empty = true;
  auto builder = VersionBuilder::Open(store, options, native);
  ASSERT_OK(builder);
  auto summary = (*builder)->Commit();
  ASSERT_OK(summary);
  EXPECT_EQ(summary->tensors(), 3u);
  EXPECT_EQ(summary->bytes(), 4u);
  const auto scale = *(*builder)->version()->GetTensor(2);
  EXPECT_EQ(std::memcmp(scale->data(), "\x80\x3f\x80\x3f", 4), 0);
}

}  // namespace
}  // namespace refit
