// Codecs of deltas beside memcpy of the same chunks, one thread; prints JSON, see sections/delta.py.
//
//   bench-delta [--bytes N] [--rounds N]
//
// All contenders take turns chunk by chunk, each at another place of ranges that are larger than caches: what slows the
// machine slows them alike, and a chunk is not warm from the one before. A round's figure is the median of its chunks.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <iterator>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "common/wire/digest.h"
#include "refit/buffer.h"
#include "tests/bench/delta_codecs.h"

namespace refit {
namespace {

constexpr size_t kChunk = kDefaultChunkBytes;
constexpr size_t kElement = 2;  // BF16

struct Case {
  std::string name;
  double changed;  // of the elements
  bool any_bits;   // instead of one or two steps up or down
};
const std::vector<Case> kCases = {{"0.5 %", 0.005, false}, {"1 %", 0.01, false}, {"3 %", 0.03, false},
                                  {"5 %", 0.05, false},    {"20 %", 0.2, false}, {"100 %", 1, false},
                                  {"random bits", 1, true}};

// Contents of a trainer's memory before and after a step, and a worker's.
struct Memory {
  std::shared_ptr<Buffer> base;
  std::shared_ptr<Buffer> now;
  std::shared_ptr<Buffer> worker;

  size_t chunks() const { return base->size() / kChunk; }
};

absl::Span<std::byte> Chunk(Buffer& buffer, size_t chunk) { return buffer.span().subspan(chunk * kChunk, kChunk); }

uint16_t* Elements(Buffer& buffer) { return reinterpret_cast<uint16_t*>(buffer.data()); }

// Values like weights: either sign, a few binary orders of magnitude, any mantissa.
void FillBase(Buffer& base, std::mt19937_64& random) {
  for (size_t i = 0; i < base.size() / kElement; ++i) {
    const uint64_t bits = random();
    Elements(base)[i] = static_cast<uint16_t>((bits & 0x807f) | (118 + (bits >> 16) % 4) << 7);
  }
}

uint64_t Change(const Case& what, Memory& memory, std::mt19937_64& random) {
  std::memcpy(memory.now->data(), memory.base->data(), memory.base->size());
  constexpr int kSteps[] = {-2, -1, 1, 2};
  uint16_t* const now = Elements(*memory.now);
  const size_t elements = memory.now->size() / kElement;
  uint64_t changes = 0;
  std::geometric_distribution<uint64_t> gap(std::min(what.changed, 0.999999));
  for (uint64_t i = gap(random); i < elements; i += 1 + (what.changed < 1 ? gap(random) : 0), ++changes) {
    now[i] = static_cast<uint16_t>(what.any_bits ? random() : now[i] + kSteps[random() % 4]);
  }
  return changes;
}

using Work = std::function<void(size_t chunk)>;
struct Contender {
  std::string name;
  Work work;
  std::vector<double> rounds = {};  // bytes of the range a second
};

double Median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

void MeasureRound(std::vector<Contender>& contenders, size_t chunks, bool counts) {
  std::vector<std::vector<double>> seconds(contenders.size());
  for (size_t chunk = 0; chunk < chunks; ++chunk) {
    for (size_t i = 0; i < contenders.size(); ++i) {
      const size_t at = (chunk + i * 11) % chunks;
      const auto begin = std::chrono::steady_clock::now();
      contenders[i].work(at);
      seconds[i].push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    }
  }
  for (size_t i = 0; i < contenders.size(); ++i) {
    if (counts) contenders[i].rounds.push_back(static_cast<double>(kChunk) / std::max(Median(seconds[i]), 1e-9));
  }
}

// The payloads of all chunks of one codec; they give what was encoded, or the process ends.
std::vector<Payload> EncodeAll(const NamedCodec& codec, const Memory& memory) {
  std::vector<Payload> payloads(memory.chunks());
  std::vector<std::byte> range(kChunk);
  for (size_t i = 0; i < payloads.size(); ++i) {
    codec.codec->Encode(Chunk(*memory.base, i), Chunk(*memory.now, i), payloads[i]);
    if (payloads[i].empty()) continue;
    std::memcpy(range.data(), Chunk(*memory.base, i).data(), kChunk);
    codec.codec->ApplyInPlace(payloads[i], absl::MakeSpan(range));
    if (std::memcmp(range.data(), Chunk(*memory.now, i).data(), kChunk) != 0) {
      std::fprintf(stderr, "%s: applied, it gives other bytes\n", codec.name.c_str());
      std::exit(1);
    }
  }
  return payloads;
}

uint64_t WireBytes(const std::vector<Payload>& payloads) {
  uint64_t bytes = 0;
  for (const Payload& payload : payloads) bytes += payload.empty() ? kChunk : payload.size();
  return bytes;
}

std::string Json(const Contender& contender) {
  return absl::StrFormat(R"("%s": [%s])", contender.name, absl::StrJoin(contender.rounds, ", "));
}

// What is measured of a codec: name/encode, and name/apply if it made payloads.
std::string MeasureCase(const Case& what, Memory& memory, std::vector<NamedCodec>& codecs, int rounds,
                        std::mt19937_64& random) {
  const uint64_t changes = Change(what, memory, random);
  std::memcpy(memory.worker->data(), memory.base->data(), memory.base->size());
  std::vector<Contender> contenders = {
      {"memcpy",
       [&](size_t i) { std::memcpy(Chunk(*memory.worker, i).data(), Chunk(*memory.now, i).data(), kChunk); }}};
  std::vector<std::vector<Payload>> payloads;
  std::vector<std::string> wire;
  Payload scratch;
  for (const NamedCodec& codec : codecs) {
    payloads.push_back(EncodeAll(codec, memory));
    wire.push_back(absl::StrFormat(R"("%s": %d)", codec.name, WireBytes(payloads.back())));
  }
  for (size_t c = 0; c < codecs.size(); ++c) {
    DeltaCodec& codec = *codecs[c].codec;
    contenders.push_back({codecs[c].name + "/encode",
                          [&](size_t i) { codec.Encode(Chunk(*memory.base, i), Chunk(*memory.now, i), scratch); }});
    if (payloads[c][0].empty()) continue;
    contenders.push_back({codecs[c].name + "/apply", [&, c](size_t i) {
                            if (!payloads[c][i].empty()) codec.ApplyInPlace(payloads[c][i], Chunk(*memory.worker, i));
                          }});
  }
  for (int round = 0; round <= rounds; ++round) MeasureRound(contenders, memory.chunks(), round > 0);

  std::vector<std::string> speeds;
  speeds.reserve(contenders.size());
  for (const Contender& contender : contenders) speeds.push_back(Json(contender));
  return absl::StrFormat(R"({"case": "%s", "share": %g, "changes": %d, "dense": %d, "wire": {%s}, "speeds": {%s}})",
                         what.name, what.changed, changes, memory.now->size(), absl::StrJoin(wire, ", "),
                         absl::StrJoin(speeds, ", "));
}

int Main(int argc, char** argv) {
  uint64_t bytes = 96 << 20;
  int rounds = 5;
  CLI::App app("Codecs of deltas beside memcpy");
  app.add_option("--bytes", bytes, "of the range, in whole chunks");
  app.add_option("--rounds", rounds, "that count, after one that warms up");
  CLI11_PARSE(app, argc, argv);
  const size_t size = std::max<uint64_t>(bytes / kChunk, 1) * kChunk;
  Memory memory{*Buffer::Allocate(size), *Buffer::Allocate(size), *Buffer::Allocate(size)};
  std::mt19937_64 random(1);
  FillBase(*memory.base, random);
  std::vector<NamedCodec> codecs = DeltaCodecs();
  std::vector<std::string> cases;
  cases.reserve(std::size(kCases));
  for (const Case& what : kCases) cases.push_back(MeasureCase(what, memory, codecs, rounds, random));
  std::printf("[%s]\n", absl::StrJoin(cases, ",\n ").c_str());
  return 0;
}

}  // namespace
}  // namespace refit

int main(int argc, char** argv) { return refit::Main(argc, argv); }
