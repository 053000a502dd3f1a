// What is committed comes back after a restart, whole and unchanged, or not at all.
#include "server/spool/spool.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/wire/digest.h"
#include "server/push/version_builder.h"
#include "tests/support/eventually.h"
#include "tests/support/low_limit.h"
#include "tests/support/sanitized.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_folder.h"

namespace refit {
namespace {

using absl::StatusCode;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;
using Bytes = std::vector<std::byte>;

constexpr uint64_t kChunk = 4096;
constexpr uint64_t kMaxChunk = 1 << 20;
constexpr std::chrono::seconds kPatience{30};

// Of odd sizes, so that what follows lies askew in a file; empty ones at the beginning, between, and at the end.
const std::vector<TensorSpec> kSpecs = {
    {"empty.first", DType::kF32, {0, 7}}, {"odd", DType::kU8, {4097}},      {"askew", DType::kF32, {3000}},
    {"empty", DType::kBF16, {0}},         {"scalar", DType::kF64, {}},      {"\xc3\xa4\"name\\", DType::kI8, {3}},
    {"large", DType::kBF16, {300, 100}},  {"empty.last", DType::kI64, {0}},
};

Bytes Values(const TensorSpec& spec, uint64_t seed) {
  Bytes bytes(spec.ByteSize());
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>((i * 2654435761U >> 11) + seed);
  return bytes;
}

v1::VersionSelector Number(uint64_t version) {
  v1::VersionSelector selector;
  selector.set_number(version);
  return selector;
}

// A service's life: a store, and its spool.
struct Life {
  explicit Life(const std::string& folder, uint32_t retain = 2, uint64_t max_chunk = kMaxChunk,
                SpoolOwner owner = SpoolOwner::kThisUser) {
    StoreOptions options;
    options.retain_versions = retain;
    options.chunk_bytes = kChunk;
    options.memory_budget_bytes = 64 << 20;
    store = std::make_unique<VersionStore>(options);
    spool = Spool::Open(folder, owner, max_chunk, *store, EventLog());
  }

  absl::StatusOr<std::shared_ptr<Version>> Push(uint64_t number, const std::string& model = "m", uint64_t epoch = 0) {
    PublishOptions options;
    options.model = model;
    options.version = number;
    options.adapter = "identity";
    options.publisher = "trainer 1";
    options.trainer_epoch = epoch;
    auto builder = VersionBuilder::Open(*store, options, kSpecs);
    if (!builder.ok()) return builder.status();
    for (size_t i = 0; i < kSpecs.size(); ++i) {
      const Bytes bytes = Values(kSpecs[i], number);
      if (absl::Status status = (*builder)->Append(i, 0, bytes); !status.ok()) return status;
    }
    if (auto committed = (*builder)->Commit(); !committed.ok()) return committed.status();
    return (*builder)->version();
  }

  // Committed, and on disk.
  std::shared_ptr<Version> MustSpool(uint64_t number, const std::string& model = "m", uint64_t epoch = 0) {
    auto version = Push(number, model, epoch);
    EXPECT_OK(version);
    if (!version.ok()) return nullptr;
    EXPECT_TRUE(Eventually([&] { return (*version)->is_spooled(); }, kPatience)) << (*spool)->Info().last_error();
    return *version;
  }

  void Flush() { (*spool)->Stop(Spool::Clock::time_point::max()); }

  std::vector<uint64_t> Committed(const std::string& model = "m") const {
    std::vector<uint64_t> numbers;
    for (const auto& version : store->List(model)) {
      if (version->state() == v1::VERSION_STATE_COMMITTED) numbers.push_back(version->number());
    }
    return numbers;
  }

  std::unique_ptr<VersionStore> store;
  absl::StatusOr<std::unique_ptr<Spool>> spool;
};

void ExpectIs(const Version& version, uint64_t number) {
  ASSERT_EQ(version.size(), kSpecs.size());
  for (size_t i = 0; i < version.size(); ++i) {
    EXPECT_EQ(version.spec(i), kSpecs[i]);
    const Bytes expected = Values(kSpecs[i], number);
    EXPECT_EQ(version.tensor_digest(i), DigestTensor(expected, version.chunk_bytes()));
    Bytes bytes;
    for (uint64_t chunk = 0; chunk < version.chunk_count(i); ++chunk) {
      auto got = version.GetChunk(i, chunk);
      ASSERT_OK(got);
      ASSERT_TRUE(got->has_value());
      EXPECT_EQ((*got)->digest, DigestBytes((*got)->bytes));
      bytes.insert(bytes.end(), (*got)->bytes.begin(), (*got)->bytes.end());
    }
    EXPECT_EQ(bytes, expected) << kSpecs[i].name;
  }
}

class SpoolTest : public ::testing::Test {
 protected:
  std::string Folder() const { return folder_.Path("spool"); }
  std::vector<std::string> Files(absl::string_view ending = ".safetensors") const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(Folder())) {
      if (absl::EndsWith(entry.path().string(), ending)) names.push_back(entry.path().filename());
    }
    std::sort(names.begin(), names.end());
    return names;
  }
  std::string FileOf(uint64_t number, const std::string& model = "m", uint64_t epoch = 0) const {
    return Folder() + "/" + SpoolFolder::NameOf(model, {epoch, number});
  }
  void Damage(const std::string& path, int64_t offset) const {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(offset, offset < 0 ? std::ios::end : std::ios::beg);
    const int byte = file.peek();
    file.seekp(offset, offset < 0 ? std::ios::end : std::ios::beg);
    file.put(static_cast<char>(byte ^ 0x10));
    ASSERT_TRUE(file.good());
  }
  // Versions 1 and 2 of "m".
  void MakeTwo() {
    Life life(Folder());
    ASSERT_OK(life.spool);
    life.MustSpool(1);
    life.MustSpool(2);
  }

  TemporaryFolder folder_;
};

TEST_F(SpoolTest, AFileThatThisProcessMayNotMapIsNotBad) {
  if (kSanitized) GTEST_SKIP() << "sanitizers need mappings of their own";
  {
    Life life(Folder());
    life.MustSpool(1);
  }
  {
    const NoMappings none;
    if (!none.is_exhausted()) GTEST_SKIP() << "vm.max_map_count is larger than what this test takes";
    const Life life(Folder());
    EXPECT_THAT(life.spool, StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("vm.max_map_count")));
  }
  EXPECT_TRUE(Files(".bad").empty());
  const Life life(Folder());
  ASSERT_OK(life.spool);
  EXPECT_EQ(life.Committed(), std::vector<uint64_t>{1});
}

TEST_F(SpoolTest, WhatWasCommittedComesBackAsItWas) {
  v1::VersionSummary before;
  {
    Life life(Folder());
    ASSERT_OK(life.spool);
    before = life.MustSpool(7, "m", 3)->Summary();
  }
  Life life(Folder());
  ASSERT_OK(life.spool);
  auto version = life.store->Find("m", {});
  ASSERT_OK(version);
  EXPECT_EQ((*version)->identity().publisher, "trainer 1");
  EXPECT_EQ(life.store->reserved_bytes(), 0u);
  ExpectIs(**version, 7);
  v1::VersionSummary after = (*version)->Summary();
  EXPECT_TRUE(after.spooled());
  EXPECT_TRUE(after.mapped());
  EXPECT_EQ(after.trainer_epoch(), 3u);
  after.clear_mapped();
  before.set_spooled(true);
  EXPECT_EQ(after.SerializeAsString(), before.SerializeAsString());
}

TEST_F(SpoolTest, AnybodyCanReadTheFileAndNobodyElseMay) {
  MakeTwo();
  auto file = SafetensorsFile::Open(FileOf(2));
  ASSERT_OK(file);
  EXPECT_EQ((*file)->tensors(), kSpecs);
  for (size_t i = 0; i < kSpecs.size(); ++i) {
    const Bytes expected = Values(kSpecs[i], 2);
    EXPECT_TRUE(std::equal(expected.begin(), expected.end(), (*file)->data(i).begin(), (*file)->data(i).end()));
  }
  EXPECT_THAT((*file)->metadata().at("refit.summary"), HasSubstr("\"manifest_digest\""));
  struct stat info = {};
  ASSERT_EQ(stat(FileOf(2).c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  ASSERT_EQ(stat(Folder().c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700u);
}

TEST_F(SpoolTest, ExpertsAreKnownAfterARestart) {
  const std::vector<TensorSpec> native = {
      {"model.language_model.layers.0.moe.experts.gate_and_up_projs", DType::kBF16, {4, 6, 8}},
      {"model.norm.weight", DType::kBF16, {16}}};
  const auto experts_of = [](const Version& version) {
    std::vector<bool> experts;
    for (const auto& output : version.plan().outputs) experts.push_back(output.planned.experts);
    return experts;
  };
  std::vector<bool> before;
  {
    Life life(Folder());
    PublishOptions options;
    options.version = 1;
    auto builder = VersionBuilder::Open(*life.store, options, native);
    ASSERT_OK(builder);
    ASSERT_OK((*builder)->Append(0, 0, Values(native[0], 1)));
    ASSERT_OK((*builder)->Append(1, 0, Values(native[1], 1)));
    ASSERT_OK((*builder)->Commit());
    before = experts_of(*(*builder)->version());
    life.Flush();
  }
  Life life(Folder());
  auto version = life.store->Find("default", {});
  ASSERT_OK(version);
  EXPECT_EQ(experts_of(**version), before);
  EXPECT_NE(std::count(before.begin(), before.end(), true), 0);
}

TEST_F(SpoolTest, KeepsWhatTheStoreRetains) {
  {
    Life life(Folder());
    for (uint64_t number = 1; number <= 5; ++number) life.MustSpool(number);
    life.MustSpool(9, "other model/../../x");
    life.Flush();
    EXPECT_THAT(Files(), UnorderedElementsAre(SpoolFolder::NameOf("m", {0, 4}), SpoolFolder::NameOf("m", {0, 5}),
                                              SpoolFolder::NameOf("other model/../../x", {0, 9})));
    const v1::SpoolInfo info = (*life.spool)->Info();
    EXPECT_EQ(info.versions(), 3u);
    EXPECT_EQ(info.pending(), 0u);
    EXPECT_EQ(info.bytes(), 3 * (*life.store->Find("m", {}))->bytes());
    EXPECT_FALSE((*life.store->Find("m", Number(3)))->Summary().spooled());
  }
  EXPECT_THAT(folder_.Names(), ElementsAre("spool"));
  {
    Life life(Folder());
    EXPECT_THAT(life.Committed(), ElementsAre(4, 5));
    EXPECT_THAT(life.Committed("other model/../../x"), ElementsAre(9));
    // A version that is mapped is retired as any other, and goes from the disk.
    life.MustSpool(6);
    life.Flush();
    EXPECT_THAT(life.Committed(), ElementsAre(5, 6));
    EXPECT_FALSE(std::filesystem::exists(FileOf(4)));
  }
  Life life(Folder(), /*retain=*/1);
  EXPECT_THAT(life.Committed(), ElementsAre(6));
  EXPECT_FALSE(std::filesystem::exists(FileOf(5)));
}

TEST_F(SpoolTest, NumbersThatWereCommittedAreTakenForGood) {
  MakeTwo();
  {
    Life life(Folder());
    EXPECT_THAT(life.Push(2), StatusIs(StatusCode::kAlreadyExists, HasSubstr("was committed before")));
    EXPECT_THAT(life.Push(1), StatusIs(StatusCode::kAlreadyExists));
  }
  // Even if nothing of it is left.
  for (const std::string& name : Files()) std::filesystem::remove(Folder() + "/" + name);
  Life life(Folder());
  EXPECT_THAT(life.Committed(), IsEmpty());
  EXPECT_THAT(life.Push(2), StatusIs(StatusCode::kFailedPrecondition, HasSubstr("lies below")));
  EXPECT_OK(life.Push(3));
}

TEST_F(SpoolTest, ARunThatWasFencedOffStaysSo) {
  {
    Life life(Folder());
    life.MustSpool(1, "m", 5);
    PublishOptions options;
    options.model = "m";
    options.version = 2;
    options.trainer_epoch = 6;
    auto open = VersionBuilder::Open(*life.store, options, kSpecs);
    ASSERT_OK(open);
    life.Flush();  // nothing of epoch 6 was committed
  }
  Life life(Folder());
  EXPECT_THAT(life.Push(2, "m", 5), StatusIs(StatusCode::kFailedPrecondition, AllOf(HasSubstr("5"), HasSubstr("6"))));
  EXPECT_OK(life.Push(2, "m", 6));
}

// Two lineages with the same number side by side, and after that the numbers of the newest one count.
TEST_F(SpoolTest, LineagesKeepTheirOwnNumbersOverARestart) {
  {
    Life life(Folder());
    life.MustSpool(50, "m", 1);
    const auto begun_anew = life.MustSpool(1, "m", 2);
    ASSERT_NE(begun_anew, nullptr);
    life.Flush();
    EXPECT_THAT(Files(), UnorderedElementsAre(SpoolFolder::NameOf("m", {1, 50}), SpoolFolder::NameOf("m", {2, 1})));
  }
  {
    Life life(Folder());
    EXPECT_THAT(life.Committed(), ElementsAre(50, 1));
    EXPECT_EQ((*life.store->Find("m", {}))->number(), 1u);
    ExpectIs(**life.store->Find("m", {}), 1);
    EXPECT_THAT(life.Push(51, "m", 1), StatusIs(StatusCode::kFailedPrecondition, HasSubstr("epoch 2 has taken over")));
    EXPECT_THAT(life.Push(1, "m", 2), StatusIs(StatusCode::kAlreadyExists));
    life.MustSpool(50, "m", 2);  // the same number as in the older lineage
    life.Flush();
    EXPECT_THAT(life.Committed(), ElementsAre(1, 50));
    EXPECT_FALSE(std::filesystem::exists(FileOf(50, "m", 1)));
  }
  Life life(Folder());
  EXPECT_THAT(life.Committed(), ElementsAre(1, 50));
  EXPECT_EQ((*life.store->Find("m", {}))->key(), (VersionKey{2, 50}));
}

// An epoch that has committed nothing yet is remembered, and its numbers may start anew after a restart too.
TEST_F(SpoolTest, ALineageThatHasCommittedNothingBeginsAtAnyNumber) {
  {
    Life life(Folder());
    life.MustSpool(50, "m", 1);
    PublishOptions options;
    options.model = "m";
    options.version = 3;
    options.trainer_epoch = 2;
    ASSERT_OK(VersionBuilder::Open(*life.store, options, kSpecs));  // and given up
    life.Flush();
  }
  Life life(Folder());
  EXPECT_EQ((*life.store->Find("m", {}))->number(), 50u);
  EXPECT_THAT(life.Push(51, "m", 1), StatusIs(StatusCode::kFailedPrecondition));
  EXPECT_OK(life.Push(3, "m", 2));
}

// As versions of an epoch were named before epochs stood in names.
TEST_F(SpoolTest, FilesWithoutTheirEpochInTheNameAreServed) {
  {
    Life life(Folder());
    life.MustSpool(7, "m", 3);
    life.Flush();
  }
  std::filesystem::rename(FileOf(7, "m", 3), FileOf(7));
  Life life(Folder());
  const auto version = life.store->Find("m", {});
  ASSERT_OK(version);
  EXPECT_EQ((*version)->key(), (VersionKey{3, 7}));
  life.MustSpool(8, "m", 3);
  life.MustSpool(9, "m", 3);
  life.Flush();
  EXPECT_THAT(Files(), UnorderedElementsAre(SpoolFolder::NameOf("m", {3, 8}), SpoolFolder::NameOf("m", {3, 9})));
}

TEST_F(SpoolTest, HalfWrittenFilesGoAndForeignOnesStay) {
  MakeTwo();
  std::ofstream(Folder() + "/.refit-123-1.tmp") << "half";
  std::ofstream(Folder() + "/notes.txt") << "mine";
  std::ofstream(Folder() + "/model.safetensors") << "mine too";
  std::filesystem::create_directory(Folder() + "/folder");
  Life life(Folder());
  ASSERT_OK(life.spool);
  EXPECT_THAT(life.Committed(), ElementsAre(1, 2));
  EXPECT_FALSE(std::filesystem::exists(Folder() + "/.refit-123-1.tmp"));
  for (const char* name : {"/notes.txt", "/model.safetensors", "/folder"}) {
    EXPECT_TRUE(std::filesystem::exists(Folder() + name)) << name;
  }
}

TEST_F(SpoolTest, DamagedVersionsAreRefusedAndTheOthersServed) {
  const struct {
    const char* what;
    std::function<void(const std::string&)> damage;
  } rows[] = {
      {"last byte", [&](const std::string& path) { Damage(path, -1); }},
      {"first byte of data", [&](const std::string& path) { Damage(path, -76'108); }},
      {"header length", [&](const std::string& path) { Damage(path, 0); }},
      {"header", [&](const std::string& path) { Damage(path, 60); }},
      {"truncated by a byte",
       [&](const std::string& path) { std::filesystem::resize_file(path, std::filesystem::file_size(path) - 1); }},
      {"truncated to half",
       [&](const std::string& path) { std::filesystem::resize_file(path, std::filesystem::file_size(path) / 2); }},
      {"empty", [&](const std::string& path) { std::filesystem::resize_file(path, 0); }},
      {"longer", [&](const std::string& path) { std::ofstream(path, std::ios::app) << "x"; }},
      {"another version's",
       [&](const std::string& path) {
         std::filesystem::copy_file(FileOf(1), path, std::filesystem::copy_options::overwrite_existing);
       }},
      {"a folder",
       [&](const std::string& path) {
         std::filesystem::remove(path);
         std::filesystem::create_directory(path);
       }},
  };
  for (const auto& row : rows) {
    SCOPED_TRACE(row.what);
    std::filesystem::remove_all(Folder());
    MakeTwo();
    row.damage(FileOf(2));
    Life life(Folder());
    ASSERT_OK(life.spool);
    EXPECT_THAT(life.Committed(), ElementsAre(1));
    ExpectIs(**life.store->Find("m", Number(1)), 1);
    EXPECT_THAT(Files(".bad"), ElementsAre(SpoolFolder::NameOf("m", {0, 2}) + ".bad"));
    EXPECT_THAT(life.Push(2), StatusIs(StatusCode::kFailedPrecondition));  // its number was used
    life.MustSpool(3);
  }
}

// Every byte counts: in the data, and in the header too, unless the version comes out the same.
TEST_F(SpoolTest, NoFlippedByteIsServed) {
  MakeTwo();
  const std::string good = folder_.Path("good");
  std::filesystem::copy_file(FileOf(2), good);
  const auto size = static_cast<int64_t>(std::filesystem::file_size(good));
  for (int64_t offset = 0; offset < size; offset += 97) {
    std::filesystem::copy_file(good, FileOf(2), std::filesystem::copy_options::overwrite_existing);
    Damage(FileOf(2), offset);
    auto file = SpooledFile::Open(FileOf(2));
    if (!file.ok() || SpoolFolder::NameOf(file->model(), file->key()) != SpoolFolder::NameOf("m", {0, 2})) continue;
    auto version = file->Load();
    if (version.ok()) ExpectIs(**version, 2);
  }
}

TEST_F(SpoolTest, AFullDiskIsReportedAndTheServiceGoesOn) {
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit before = {};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  Life life(Folder());
  life.MustSpool(1);
  const rlimit small = {16 << 10, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  for (uint64_t number = 2; number <= 3; ++number) {
    ASSERT_OK(life.Push(number));
    EXPECT_TRUE(Eventually(
        [&] { return absl::StrContains((*life.spool)->Info().last_error(), absl::StrCat("m/", number)); }, kPatience))
        << (*life.spool)->Info().last_error();
  }
  EXPECT_THAT((*life.spool)->Info().last_error(), AllOf(HasSubstr("m/3 is not on disk"), HasSubstr("cannot write")));
  EXPECT_EQ((*life.spool)->Info().pending(), 1u);
  ExpectIs(**life.store->Find("m", {}), 3);
  EXPECT_THAT(Files(".tmp"), IsEmpty());
  EXPECT_TRUE(std::filesystem::exists(FileOf(1)));  // retired, but the last one that is on disk
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  life.MustSpool(4);
  EXPECT_TRUE(Eventually([&] { return (*life.spool)->Info().last_error().empty(); }, kPatience));
  life.Flush();
  EXPECT_FALSE(std::filesystem::exists(FileOf(2)));  // superseded before it could be written: skipped
  EXPECT_FALSE(std::filesystem::exists(FileOf(1)));
}

TEST_F(SpoolTest, OneServiceAFolder) {
  Life first(Folder());
  ASSERT_OK(first.spool);
  Life second(Folder());
  EXPECT_THAT(second.spool, StatusIs(StatusCode::kFailedPrecondition, HasSubstr("another refit-server")));
  first.spool->reset();
  EXPECT_OK(Life(Folder()).spool);
}

TEST_F(SpoolTest, RefusesFoldersThatAreNotItsOwn) {
  EXPECT_THAT(Life(folder_.Path("no/such")).spool, StatusIs(StatusCode::kNotFound, HasSubstr("no/such")));
  std::ofstream(folder_.Path("file")) << "x";
  EXPECT_THAT(Life(folder_.Path("file")).spool, StatusIs(StatusCode::kInvalidArgument, HasSubstr("no folder")));
  std::filesystem::create_directory(Folder());
  for (const mode_t mode : {0770U, 0702U}) {
    ASSERT_EQ(chmod(Folder().c_str(), mode), 0);
    EXPECT_THAT(Life(Folder()).spool,
                StatusIs(StatusCode::kPermissionDenied, AllOf(HasSubstr("chmod 700"), HasSubstr("--trust-spool"))));
    EXPECT_OK(Life(Folder(), 2, kMaxChunk, SpoolOwner::kAnyone).spool) << mode;
  }
  ASSERT_EQ(chmod(Folder().c_str(), 0755), 0);
  EXPECT_OK(Life(Folder()).spool);
  for (const char* text : {"", "no json", "[1]", "{\"models\": 3}", "{\"models\": [{}]}",
                           "{\"models\": [{\"model\": \"m\", \"newest_committed\": \"x\"}]}"}) {
    std::ofstream(Folder() + "/models.json", std::ios::trunc) << text;
    EXPECT_THAT(Life(Folder()).spool, StatusIs(StatusCode::kDataLoss, HasSubstr("models.json"))) << text;
  }
}

TEST_F(SpoolTest, ChunksLargerThanAMessageAreNotServedAndNotLost) {
  MakeTwo();
  {
    Life life(Folder(), 2, /*max_chunk=*/kChunk - 64);
    ASSERT_OK(life.spool);
    EXPECT_THAT(life.Committed(), IsEmpty());
    EXPECT_THAT(life.Push(2), StatusIs(StatusCode::kFailedPrecondition));
  }
  EXPECT_THAT(Life(Folder()).Committed(), ElementsAre(1, 2));
}

TEST_F(SpoolTest, StoppedInTheMiddleLeavesNothingHalf) {
  {
    Life life(Folder());
    life.MustSpool(1);
    ASSERT_OK(life.Push(2));
    (*life.spool)->Stop(Spool::Clock::time_point::min());
  }
  EXPECT_THAT(Files(".tmp"), IsEmpty());
  const std::vector<uint64_t> committed = Life(Folder()).Committed();
  EXPECT_THAT(committed, ::testing::AnyOf(ElementsAre(1), ElementsAre(1, 2)));
}

TEST_F(SpoolTest, ReadersOfARetiredVersionKeepItsBytes) {
  MakeTwo();
  Life life(Folder(), /*retain=*/1);
  auto version = life.store->Find("m", {});
  ASSERT_OK(version);
  const Version::Reader reader(*version);
  life.MustSpool(3);
  life.Flush();
  EXPECT_EQ((*version)->state(), v1::VERSION_STATE_RETIRED);
  EXPECT_FALSE(std::filesystem::exists(FileOf(2)));
  ExpectIs(**version, 2);
}

}  // namespace
}  // namespace refit
