#include "client/cli/commands/verify.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/adapters/gemma4_moe_state_dict_adapter.h"
#include "common/adapters/layout_rules.h"
#include "common/adapters/plan.h"
#include "common/tensor/kernels.h"

namespace refit::cli {
namespace {

// How many native bytes are converted at once. Small, so that the same memory is reused.
constexpr uint64_t kSlabBytes = 16 << 20;

// Row-major index of an element, "[3, 0, 17]".
std::string ElementPosition(const Shape& shape, uint64_t element) {
  Shape position(shape.size());
  for (size_t i = shape.size(); i-- > 0;) {
    position[i] = static_cast<int64_t>(element) % shape[i];
    element /= static_cast<uint64_t>(shape[i]);
  }
  return ToString(position);
}

// One element: its bits, most significant first, and its value.
std::string ElementText(DType dtype, const std::byte* element) {
  std::string bits;
  for (size_t i = ElementSize(dtype); i-- > 0;) absl::StrAppendFormat(&bits, "%02x", std::to_integer<int>(element[i]));
  return absl::StrFormat("0x%s (%.9g)", bits, ElementAsDouble(dtype, element, 0));
}

absl::Status WrongSize(const TensorSpec& tensor, uint64_t came, uint64_t expected) {
  return absl::DataLossError(
      absl::StrCat("tensor ", tensor.ToString(), ": ", came, " bytes came, ", expected, " were expected"));
}

// DATA_LOSS, naming the first element that differs, unless `received` is the expected tensor's bytes from `offset` on.
absl::Status CompareBytes(const TensorSpec& tensor, uint64_t offset, absl::Span<const std::byte> received,
                          absl::Span<const std::byte> expected) {
  if (received.empty() || std::memcmp(received.data(), expected.data(), received.size()) == 0) return absl::OkStatus();
  const auto first = std::mismatch(received.begin(), received.end(), expected.begin()).first - received.begin();
  const uint64_t size = ElementSize(tensor.dtype);
  const uint64_t element = static_cast<uint64_t>(first) / size;
  return absl::DataLossError(absl::StrCat("tensor ", Printable(tensor.name), ": element ",
                                          ElementPosition(tensor.shape, offset / size + element), " is ",
                                          ElementText(tensor.dtype, received.data() + element * size), ", expected ",
                                          ElementText(tensor.dtype, expected.data() + element * size)));
}

// As CompareRows, for a part that is neither empty nor the whole tensor.
absl::Status CompareBox(const TensorPart& part, uint64_t offset, absl::Span<const std::byte> received,
                        absl::Span<const std::byte> expected) {
  const TensorSpec& tensor = part.tensor;
  const uint64_t row_bytes = tensor.ByteSize() / static_cast<uint64_t>(tensor.shape[0]);
  Shape rows = tensor.shape;  // the received rows, as a tensor of their own
  rows[0] = static_cast<int64_t>(expected.size() / row_bytes);
  Box box = part.box;
  box.offsets[0] -= static_cast<int64_t>(offset / row_bytes);
  const std::optional<Box> common = Intersection(box, WholeBox(rows));
  if (!common.has_value()) return absl::OkStatus();

  const uint64_t part_row_bytes = part.ByteSize() / static_cast<uint64_t>(part.box.sizes[0]);
  received.remove_prefix(static_cast<uint64_t>(common->offsets[0] - box.offsets[0]) * part_row_bytes);
  const uint64_t element = ElementSize(tensor.dtype);
  absl::Status status;
  BoxRuns(rows, *common).ForEach(0, ElementCount(*common), [&](int64_t place, int64_t count) {
    const uint64_t at = static_cast<uint64_t>(place) * element;
    const uint64_t bytes = static_cast<uint64_t>(count) * element;
    status.Update(CompareBytes(tensor, offset + at, received.first(bytes), expected.subspan(at, bytes)));
    received.remove_prefix(bytes);
  });
  return status;
}

// `expected` holds whole rows (dimension 0) of the tensor, from byte `offset` of the tensor on. Compares those of their
// elements that belong to the part with `received`, the part's bytes.
absl::Status CompareRows(const TensorPart& part, uint64_t offset, absl::Span<const std::byte> received,
                         absl::Span<const std::byte> expected) {
  const uint64_t end = offset + expected.size();
  if (end > part.tensor.ByteSize()) return WrongSize(part.tensor, part.tensor.ByteSize(), end);
  if (received.empty() || expected.empty()) return absl::OkStatus();
  if (!part.is_whole()) return CompareBox(part, offset, received, expected);
  return CompareBytes(part.tensor, offset, received.subspan(offset, expected.size()), expected);
}

class TorchVerifier : public Verifier {
 public:
  TorchVerifier(std::shared_ptr<const NativeSource> source, std::shared_ptr<const Adapter> adapter,
                ConvertOptions options, VersionPlan plan, LayoutRules rules)
      : source_(std::move(source)),
        adapter_(std::move(adapter)),
        options_(std::move(options)),
        plan_(std::move(plan)),
        rules_(std::move(rules)) {
    for (size_t i = 0; i < plan_.outputs.size(); ++i) output_by_name_[plan_.outputs[i].planned.hf.name] = i;
  }

  absl::Status CheckManifest(const std::vector<TensorPart>& tensors, bool whole) override;
  absl::Status CheckTensor(const TensorPart& part, absl::Span<const std::byte> bytes) override;

 private:
  absl::Status CheckPart(const TensorPart& part, const PlannedOutput& expected);
  absl::Status ConvertAndCompare(const TensorPart& part, size_t native_index, absl::Span<const std::byte> bytes);
  bool SplitsByRows(size_t native_index) const;

  std::shared_ptr<const NativeSource> source_;
  std::shared_ptr<const Adapter> adapter_;
  ConvertOptions options_;
  VersionPlan plan_;
  LayoutRules rules_;
  std::map<std::string, size_t> output_by_name_;
  std::vector<std::byte> scratch_;
  // Further outputs of the native tensor converted last: a scale, which comes after its projection.
  std::map<std::string, std::vector<std::byte>> remembered_;
};

absl::Status TorchVerifier::CheckPart(const TensorPart& part, const PlannedOutput& expected) {
  absl::StatusOr<Box> box = rules_.BoxOf(expected.hf, expected.experts);
  if (!box.ok()) return box.status();
  const TensorPart whole{expected.hf, *std::move(box)};
  if (part == whole) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrCat("the version has tensor ", part.ToString(), ", expected is ", whole.ToString()));
}

absl::Status TorchVerifier::CheckManifest(const std::vector<TensorPart>& tensors, bool whole) {
  if (whole && tensors.size() != plan_.outputs.size()) {
    return absl::DataLossError(absl::StrCat("the version has ", tensors.size(), " tensors, ", plan_.outputs.size(),
                                            " were expected of the native tensors given"));
  }
  size_t next = 0;
  for (const TensorPart& part : tensors) {
    const auto found = output_by_name_.find(part.tensor.name);
    if (found == output_by_name_.end()) {
      return absl::DataLossError(
          absl::StrCat("tensor ", Printable(part.tensor.name), " does not come from the native tensors given"));
    }
    if (absl::Status status = CheckPart(part, plan_.outputs[found->second].planned); !status.ok()) return status;
    if (found->second < next) {
      return absl::DataLossError(absl::StrCat("tensor ", Printable(part.tensor.name), " is out of order"));
    }
    next = found->second + 1;
  }
  return absl::OkStatus();
}

absl::Status TorchVerifier::CheckTensor(const TensorPart& part, absl::Span<const std::byte> bytes) {
  if (bytes.size() != part.ByteSize()) return WrongSize(part.spec(), bytes.size(), part.ByteSize());
  const auto remembered = remembered_.find(part.tensor.name);
  if (remembered != remembered_.end()) {
    const std::vector<std::byte>& expected = remembered->second;
    if (expected.size() != part.tensor.ByteSize()) {
      return WrongSize(part.tensor, part.tensor.ByteSize(), expected.size());
    }
    return CompareRows(part, 0, bytes, expected);
  }
  const auto output = output_by_name_.find(part.tensor.name);
  if (output == output_by_name_.end()) {
    return absl::DataLossError(absl::StrCat("tensor ", Printable(part.tensor.name), " is not expected"));
  }
  remembered_.clear();
  return ConvertAndCompare(part, plan_.outputs[output->second].native_index, bytes);
}

// Whether a tensor can be converted in ranges of rows (dimension 0), whose results are then concatenated.
bool TorchVerifier::SplitsByRows(size_t native_index) const {
  const TensorSpec& native = plan_.native[native_index];
  if (native.ByteSize() == 0 || native.shape.empty()) return false;
  const auto& outputs = plan_.outputs_of_native[native_index];
  return native.shape.size() >= 3 || std::all_of(outputs.begin(), outputs.end(), [&](size_t i) {
           return plan_.outputs[i].planned.transform == Transform::kPass;
         });
}

absl::Status TorchVerifier::ConvertAndCompare(const TensorPart& part, size_t native_index,
                                              absl::Span<const std::byte> bytes) {
  const TensorSpec& native = plan_.native[native_index];
  const bool split = SplitsByRows(native_index);
  const uint64_t rows = split ? static_cast<uint64_t>(native.shape[0]) : 1;
  const uint64_t row_bytes = native.ByteSize() / rows;
  const uint64_t rows_at_once = split ? std::max<uint64_t>(1, kSlabBytes / row_bytes) : 1;
  uint64_t compared = 0;
  for (uint64_t row = 0; row < rows; row += rows_at_once) {
    const uint64_t count = std::min(rows_at_once, rows - row);
    TensorSpec slab = native;
    if (split) slab.shape[0] = static_cast<int64_t>(count);
    if (!source_->is_resident()) scratch_.resize(std::max<size_t>(scratch_.size(), count * row_bytes));
    const absl::Span<const std::byte> slab_bytes =
        source_->Read(native_index, row * row_bytes, count * row_bytes, absl::MakeSpan(scratch_));
    const absl::StatusOr<TypedTensor> on_bytes = TensorOnBytes(slab, slab_bytes, source_);
    if (!on_bytes.ok()) return on_bytes.status();
    const absl::StatusOr<std::vector<PlannedOutput>> outputs = adapter_->PlanTensor(slab, options_);
    if (!outputs.ok()) return outputs.status();
    for (const PlannedOutput& output : *outputs) {
      const absl::StatusOr<TypedTensor> value = MakeHfTensor(output, *on_bytes);
      if (!value.ok()) return value.status();
      const absl::StatusOr<absl::Span<const std::byte>> expected = BytesOf(*value);
      if (!expected.ok()) return expected.status();
      if (output.hf.name != part.tensor.name) {
        std::vector<std::byte>& other = remembered_[output.hf.name];
        other.insert(other.end(), expected->begin(), expected->end());
        continue;
      }
      if (absl::Status status = CompareRows(part, compared, bytes, *expected); !status.ok()) return status;
      compared += expected->size();
    }
  }
  if (compared == part.tensor.ByteSize()) return absl::OkStatus();
  return WrongSize(part.tensor, part.tensor.ByteSize(), compared);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Verifier>> Verifier::Create(Expectation expected) {
  ConvertOptions options;
  options.dtype = expected.dtype;
  if (!expected.exclude_key_regex.empty()) {
    absl::StatusOr<std::shared_ptr<const PythonRegex>> exclude = PythonRegex::Compile(expected.exclude_key_regex);
    if (!exclude.ok()) return exclude.status();
    options.exclude = *std::move(exclude);
  }
  if (!expected.keep_dtype_regex.empty()) {
    absl::StatusOr<std::shared_ptr<const PythonRegex>> keep_dtype = PythonRegex::Compile(expected.keep_dtype_regex);
    if (!keep_dtype.ok()) return keep_dtype.status();
    options.keep_dtype = *std::move(keep_dtype);
  }
  absl::StatusOr<std::shared_ptr<const Adapter>> adapter = FindAdapter(expected.adapter);
  if (!adapter.ok()) return adapter.status();
  absl::StatusOr<VersionPlan> plan = PlanVersion(**adapter, expected.source->tensors(), options);
  if (!plan.ok()) return plan.status();
  absl::StatusOr<LayoutRules> rules = LayoutRules::Compile(expected.rules);
  if (!rules.ok()) return rules.status();
  return std::make_unique<TorchVerifier>(std::move(expected.source), *std::move(adapter), std::move(options),
                                         *std::move(plan), *std::move(rules));
}

}  // namespace refit::cli
