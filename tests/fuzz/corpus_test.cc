// A fuzz target as a test, with any compiler: every committed input, then some seconds of seeded random changes to
// them.
//
// REFIT_FUZZ_SECONDS and REFIT_FUZZ_SEED change the latter. What ended the process stays in REFIT_FUZZ_LAST_INPUT.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "tests/fuzz/mutate.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace refit {
namespace {

using Clock = std::chrono::steady_clock;

std::string ReadAll(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

std::vector<std::string> Corpus() {
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(REFIT_FUZZ_CORPUS)) paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  std::vector<std::string> corpus;
  corpus.reserve(paths.size());
  for (const std::filesystem::path& path : paths) corpus.push_back(ReadAll(path));
  return corpus;
}

int64_t FromEnvironment(const char* name, int64_t otherwise) {
  const char* value = std::getenv(name);
  return value == nullptr ? otherwise : std::atoll(value);
}

// Keeps each input in a file while it runs: so it is known whatever way the process ends.
class LastInput {
 public:
  LastInput() : fd_(open(REFIT_FUZZ_LAST_INPUT, O_WRONLY | O_CREAT | O_CLOEXEC, 0600)) { EXPECT_GE(fd_, 0); }
  ~LastInput() {
    close(fd_);
    std::filesystem::remove(REFIT_FUZZ_LAST_INPUT);
  }
  LastInput(const LastInput&) = delete;
  LastInput& operator=(const LastInput&) = delete;

  void Keep(const std::string& input) const {
    EXPECT_EQ(ftruncate(fd_, 0), 0);
    EXPECT_EQ(pwrite(fd_, input.data(), input.size(), 0), static_cast<ssize_t>(input.size()));
  }

 private:
  const int fd_;
};

void RunInput(const LastInput& last, const std::string& input) {
  last.Keep(input);
  EXPECT_EQ(LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(input.data()), input.size()), 0);
}

TEST(Corpus, EveryInput) {
  const std::vector<std::string> corpus = Corpus();
  ASSERT_GT(corpus.size(), 0u) << REFIT_FUZZ_CORPUS;
  const LastInput last;
  for (const std::string& input : corpus) RunInput(last, input);
  RunInput(last, "");
}

TEST(Corpus, RandomChanges) {
  const std::vector<std::string> corpus = Corpus();
  ASSERT_GT(corpus.size(), 0u) << REFIT_FUZZ_CORPUS;
  const LastInput last;
  std::mt19937_64 random(static_cast<uint64_t>(FromEnvironment("REFIT_FUZZ_SEED", 1)));
  const auto end = Clock::now() + std::chrono::seconds(FromEnvironment("REFIT_FUZZ_SECONDS", 3));
  uint64_t inputs = 0;
  for (; Clock::now() < end; ++inputs) RunInput(last, Mutate(corpus, random));
  std::printf("%llu inputs\n", static_cast<unsigned long long>(inputs));
}

}  // namespace
}  // namespace refit
