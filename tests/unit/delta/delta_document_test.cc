// The decoder that stands in proto/README.md, as it stands there, reads what the encoder makes.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>

#include "common/delta/delta_encoder.h"
#include "tests/support/files.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/delta/ranges.h"

namespace refit {
namespace {

constexpr char kChecks[] = R"(
import pathlib, sys

for i in range(int(sys.argv[2])):
    base, payload, now = ((pathlib.Path(sys.argv[1]) / f"{i}.{kind}").read_bytes() for kind in ("base", "payload", "now"))
    assert base != now, i
    assert apply_delta(payload, base) == now, i
)";

std::string DecoderOfTheDocument() {
  std::ifstream file(REFIT_CONTRACT_PAGE);
  const std::string page(std::istreambuf_iterator<char>(file), {});
  const std::string fence = "```python\n";
  const size_t section = page.find("\n## Delta payloads\n");
  if (section == std::string::npos) return "";
  const size_t begin = page.find(fence, section) + fence.size();
  return page.substr(begin, page.find("\n```", begin) - begin) + "\n";
}

std::string TextOf(const Bytes& bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

TEST(DeltaDocument, ItsDecoderReadsOurPayloads) {
  const std::string decoder = DecoderOfTheDocument();
  ASSERT_NE(decoder.find("def apply_delta"), std::string::npos);
  const ScratchFolder folder;
  RandomRanges random(1);
  constexpr int kCases = 60;
  for (int i = 0; i < kCases;) {
    const size_t element_size = size_t{1} << random.Below(4);
    const double probability = i % 6 == 0 ? 1 : 0.002 * static_cast<double>(1 + random.Below(100));
    const Bytes base = random.Range(100 + random.Below(2000), element_size);
    const Bytes now = random.Changed(base, element_size, probability, static_cast<Step>(random.Below(4)));
    const absl::StatusOr<EncodedDelta> delta = DeltaEncoder().Encode(base, now, element_size, {.changed = 1});
    ASSERT_OK(delta);
    if (delta->kind != EncodedDelta::Kind::kDelta) continue;
    const std::string name = std::to_string(i++);
    folder.Write(name + ".base", TextOf(base));
    folder.Write(name + ".payload", TextOf(delta->payload));
    folder.Write(name + ".now", TextOf(now));
  }
  const std::string program = folder.Write("decode.py", decoder + kChecks);
  const std::string command =
      std::string(REFIT_PYTHON) + " " + program + " " + folder.path() + " " + std::to_string(kCases);
  EXPECT_EQ(std::system(command.c_str()), 0);
}

}  // namespace
}  // namespace refit
