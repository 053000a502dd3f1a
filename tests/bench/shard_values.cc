#include "tests/bench/shard_values.h"

#include <algorithm>

#include "common/adapters/python_regex.h"

namespace refit {

absl::StatusOr<ShardValues> MakeShardValues(const ShardSource& source, const std::string& exclude_key_regex) {
  const absl::StatusOr<std::shared_ptr<const PythonRegex>> exclude = PythonRegex::Compile(exclude_key_regex);
  if (!exclude.ok()) return exclude.status();
  ShardValues values;
  for (size_t i = 0; i < source.shards().size(); ++i) {
    if (!exclude_key_regex.empty() && (*exclude)->Match(source.shards()[i].tensor.name)) {
      values.push_back(nullptr);
      continue;
    }
    absl::StatusOr<std::shared_ptr<Buffer>> buffer = Buffer::Allocate(source.shards()[i].ByteSize());
    if (!buffer.ok()) return buffer.status();
    const absl::Span<const std::byte> made = source.Read(i, 0, (*buffer)->size(), (*buffer)->span());
    if (made.data() != (*buffer)->data()) std::copy(made.begin(), made.end(), (*buffer)->data());
    values.push_back(*std::move(buffer));
  }
  return values;
}

}  // namespace refit
