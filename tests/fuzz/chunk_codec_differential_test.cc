// The hand-written chunk codec against generated protobuf on random messages, both ways.
//
//   chunk_codec_differential_test [--messages N] [--seed N]      default: 50000 messages, seed 1
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <random>
#include <string>
#include <vector>

#include "common/net/received_message.h"
#include "tests/fuzz/chunk_codec_model.h"
#include "tests/fuzz/mutate.h"
#include "tests/support/number_flags.h"

namespace refit {
namespace {

using google::protobuf::io::CodedOutputStream;
using google::protobuf::io::StringOutputStream;

uint64_t messages = 50'000;
uint64_t seed = 1;

class Messages {
 public:
  explicit Messages(uint64_t random_seed) : random_(random_seed) {}

  uint64_t Below(uint64_t bound) { return random_() % bound; }
  bool OneIn(uint64_t times) { return Below(times) == 0; }

  // Any width of varint, and its edges.
  uint64_t Number() {
    const uint64_t edge = uint64_t{1} << Below(64);
    switch (Below(5)) {
      case 0:
        return 0;
      case 1:
        return edge;
      case 2:
        return edge - 1;
      case 3:
        return ~uint64_t{0} - Below(3);
      default:
        return random_() >> Below(64);
    }
  }

  ChunkHeader Header() {
    ChunkHeader header;
    header.tensor = Number();
    header.offset = Number();
    header.encoding = static_cast<int>(OneIn(2) ? Below(4) : Number() & 0x7fffffff);
    header.decoded_bytes = Number();
    header.digest = OneIn(4) ? 0 : random_();
    if (OneIn(2)) header.tensor_digest = OneIn(4) ? 0 : random_();
    return header;
  }

  // Mostly around the lengths at which a varint grows.
  std::string Payload() {
    constexpr size_t kEdges[] = {0, 1, 40, 127, 128, 129, 1000};
    size_t size = kEdges[Below(std::size(kEdges))] + Below(3);
    if (OneIn(200)) size = 16383 + Below(3);
    std::string payload(size, '\0');
    for (char& byte : payload) byte = static_cast<char>(random_());
    return payload;
  }

  std::vector<size_t> Slices() {
    std::vector<size_t> sizes(Below(6));
    for (size_t& size : sizes) size = OneIn(3) ? Below(200) : Below(12);
    return sizes;
  }

  std::mt19937_64& random() { return random_; }

 private:
  std::mt19937_64 random_;
};

std::string Write(const std::function<void(CodedOutputStream&)>& fields) {
  std::string bytes;
  StringOutputStream stream(&bytes);
  {
    CodedOutputStream coded(&stream);
    fields(coded);
  }
  return bytes;
}

// A field as protobuf encodes it, or with a varint that is longer than it needs to be.
std::string VarintField(uint32_t number, uint64_t value, bool padded) {
  std::string bytes = Write([&](CodedOutputStream& out) {
    out.WriteTag(number << 3);
    out.WriteVarint64(value);
  });
  if (padded && bytes.size() < 10) {
    bytes.back() = static_cast<char>(bytes.back() | 0x80);
    bytes.push_back('\0');
  }
  return bytes;
}

std::string Fixed64Field(uint32_t number, uint64_t value) {
  return Write([&](CodedOutputStream& out) {
    out.WriteTag(number << 3 | 1);
    out.WriteLittleEndian64(value);
  });
}

std::string BytesField(uint32_t number, const std::string& value) {
  return Write([&](CodedOutputStream& out) {
    out.WriteTag(number << 3 | 2);
    out.WriteVarint64(value.size());
    out.WriteString(value);
  });
}

std::string UnknownField(Messages& random) {
  const auto number = static_cast<uint32_t>(16 + random.Below(1000));
  switch (random.Below(3)) {
    case 0:
      return VarintField(number, random.Number(), false);
    case 1:
      return Fixed64Field(number, random.Number());
    default:
      return BytesField(number, random.Payload());
  }
}

// A chunk's fields in any order, some twice, some of default value, padded, or unknown.
std::string StrangeChunk(Messages& random) {
  const ChunkHeader header = random.Header();
  const bool padded = random.OneIn(4);
  std::vector<std::string> fields = {VarintField(1, header.tensor, padded), VarintField(2, header.offset, false),
                                     VarintField(3, static_cast<uint64_t>(header.encoding), padded && random.OneIn(2)),
                                     VarintField(4, header.decoded_bytes, false), Fixed64Field(5, header.digest)};
  if (header.tensor_digest.has_value()) fields.push_back(Fixed64Field(6, *header.tensor_digest));
  if (!random.OneIn(8)) fields.push_back(BytesField(15, random.Payload()));
  while (random.OneIn(3)) fields.push_back(UnknownField(random));
  while (random.OneIn(5)) fields.push_back(fields[random.Below(fields.size())]);
  while (!fields.empty() && random.OneIn(3))
    fields.erase(fields.begin() + static_cast<std::ptrdiff_t>(random.Below(fields.size())));
  if (random.OneIn(2)) std::shuffle(fields.begin(), fields.end(), random.random());
  std::string chunk;
  for (const std::string& field : fields) chunk += field;
  return chunk;
}

std::string StrangeMessage(Messages& random) {
  std::string message = BytesField(1, StrangeChunk(random));
  if (random.OneIn(6)) message += UnknownField(random);
  if (random.OneIn(6)) message.insert(0, UnknownField(random));
  if (random.OneIn(12)) message += BytesField(1, StrangeChunk(random));  // protobuf merges the two
  return message;
}

// By hand and by protobuf, from one header and payload: the same bytes, and both read them back.
void CheckEncoding(Messages& random) {
  const ChunkHeader header = random.Header();
  const std::string payload = random.Payload();
  v1::PushRequest pushed;
  ToProto(header, *pushed.mutable_chunk());
  pushed.mutable_chunk()->set_payload(payload);
  const std::string by_hand = EncodeChunkPrefix(header, payload.size()) + payload;
  // Protobuf leaves an empty payload out; by hand it is always there.
  if (!payload.empty()) {
    ASSERT_EQ(by_hand, pushed.SerializeAsString());
  }

  const ReceivedMessage received(InSlices(by_hand, random.Slices()));
  const auto decoded = received.DecodeChunk();
  ASSERT_TRUE(decoded.ok() && decoded->has_value()) << decoded.status();
  ASSERT_EQ((*decoded)->header, header);
  ASSERT_EQ(PayloadOf(received, **decoded), payload);
  v1::PushRequest parsed;
  ASSERT_TRUE(parsed.ParseFromString(by_hand));
  ASSERT_EQ(parsed.SerializeAsString(), pushed.SerializeAsString());
}

TEST(ChunkCodecDifferential, AgreesWithProtobuf) {
  Messages random(seed);
  uint64_t taken = 0;
  for (uint64_t i = 0; i < messages && !HasFatalFailure(); ++i) {
    SCOPED_TRACE(testing::Message() << "message " << i << " of seed " << seed);
    switch (i % 4) {
      case 0:
      case 1:
        CheckEncoding(random);
        ++taken;
        break;
      case 2:
        taken += CheckAgainstProtobuf(StrangeMessage(random), random.Slices()) ? 1 : 0;
        break;
      default: {  // damaged
        const std::string good = EncodeChunkPrefix(random.Header(), 40) + std::string(40, 'p');
        taken += CheckAgainstProtobuf(Mutate({good, StrangeMessage(random)}, random.random()), random.Slices()) ? 1 : 0;
      }
    }
  }
  std::cout << messages << " messages, " << taken << " of them read by hand, the others left to protobuf or refused\n";
  if (messages >= 1000) {
    EXPECT_GT(taken, messages / 2);
    EXPECT_LT(taken, messages);
  }
}

}  // namespace
}  // namespace refit

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  const auto into = [](uint64_t& value) { return [&value](uint64_t number) { value = number; }; };
  if (!refit::ReadNumberFlags(argc, argv, {{"--messages", into(refit::messages)}, {"--seed", into(refit::seed)}})) {
    return 2;
  }
  return RUN_ALL_TESTS();
}
