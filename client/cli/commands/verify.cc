#include "client/cli/commands/verify.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/adapters/adapter_registry.h"
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

// Rows (dimension 0) of a native tensor.
struct Rows {
  int64_t begin = 0;
  int64_t end = 0;
};

// The rows that an output is made of.
Rows RowsOf(const TensorSpec& native, const PlannedOutput& output) {
  if (!output.box.has_value()) return {0, native.shape.empty() ? 1 : native.shape[0]};
  return {output.box->offsets[0], output.box->offsets[0] + output.box->sizes[0]};
}

// Whether the output's rows are those of the native tensor, so that it can be made of some of them at a time.
bool KeepsRows(const TensorSpec& native, const PlannedOutput& output) {
  const Rows rows = RowsOf(native, output);
  if (native.ByteSize() == 0 || native.shape.empty() || output.hf.shape.empty()) return false;
  if (output.hf.shape[0] != rows.end - rows.begin || output.transform == Transform::kFirstToLast) return false;
  return output.transform == Transform::kPass || native.shape.size() >= 3;
}

// The output as it is made of these rows alone, which a tensor of their own holds.
PlannedOutput OfRows(PlannedOutput output, const Rows& rows, bool keeps_rows) {
  if (keeps_rows) output.hf.shape[0] = rows.end - rows.begin;
  if (!output.box.has_value()) return output;
  output.box->offsets[0] = 0;
  output.box->sizes[0] = rows.end - rows.begin;
  return output;
}

class TorchVerifier : public Verifier {
 public:
  TorchVerifier(std::shared_ptr<const NativeSource> source, VersionPlan plan, LayoutRules rules)
      : source_(std::move(source)), plan_(std::move(plan)), rules_(std::move(rules)) {
    for (size_t i = 0; i < plan_.outputs.size(); ++i) output_by_name_[plan_.outputs[i].planned.hf.name] = i;
  }

  absl::Status CheckManifest(const std::vector<TensorPart>& tensors, bool whole) override;
  absl::Status CheckTensor(const TensorPart& part, absl::Span<const std::byte> bytes) override;

 private:
  // How many tensors a worker with these rules gets.
  absl::StatusOr<size_t> ExpectedTensors();
  absl::Status CheckPart(const TensorPart& part, const PlannedOutput& expected);
  absl::Status ConvertAndCompare(const TensorPart& part, const VersionPlan::Output& output,
                                 absl::Span<const std::byte> bytes);
  // The output as it is made of these rows of its native tensor.
  absl::StatusOr<TypedTensor> Convert(const VersionPlan::Output& output, const Rows& rows, bool keeps_rows);

  std::shared_ptr<const NativeSource> source_;
  VersionPlan plan_;
  LayoutRules rules_;
  std::map<std::string, size_t> output_by_name_;
  std::vector<std::byte> scratch_;
};

absl::Status TorchVerifier::CheckPart(const TensorPart& part, const PlannedOutput& expected) {
  absl::StatusOr<std::optional<Box>> box = rules_.BoxOf(expected);
  if (!box.ok()) return box.status();
  if (!box->has_value()) {
    return absl::DataLossError(absl::StrCat("the version has tensor ", part.ToString(), ", an expert of another part"));
  }
  const TensorPart whole{expected.hf, **std::move(box)};
  if (part == whole) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrCat("the version has tensor ", part.ToString(), ", expected is ", whole.ToString()));
}

absl::StatusOr<size_t> TorchVerifier::ExpectedTensors() {
  size_t expected = 0;
  for (const VersionPlan::Output& output : plan_.outputs) {
    const absl::StatusOr<std::optional<Box>> box = rules_.BoxOf(output.planned);
    if (!box.ok()) return box.status();
    if (box->has_value()) ++expected;
  }
  return expected;
}

absl::Status TorchVerifier::CheckManifest(const std::vector<TensorPart>& tensors, bool whole) {
  const absl::StatusOr<size_t> expected = ExpectedTensors();
  if (!expected.ok()) return expected.status();
  if (whole && tensors.size() != *expected) {
    return absl::DataLossError(absl::StrCat("the version has ", tensors.size(), " tensors, ", *expected,
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
  const auto output = output_by_name_.find(part.tensor.name);
  if (output == output_by_name_.end()) {
    return absl::DataLossError(absl::StrCat("tensor ", Printable(part.tensor.name), " is not expected"));
  }
  return ConvertAndCompare(part, plan_.outputs[output->second], bytes);
}

absl::StatusOr<TypedTensor> TorchVerifier::Convert(const VersionPlan::Output& output, const Rows& rows,
                                                   bool keeps_rows) {
  const TensorSpec& native = plan_.native[output.native_index];
  TensorSpec slab = native;
  if (!slab.shape.empty()) slab.shape[0] = rows.end - rows.begin;
  const uint64_t bytes = slab.ByteSize();
  const uint64_t row_bytes = rows.end > rows.begin ? bytes / static_cast<uint64_t>(rows.end - rows.begin) : 0;
  if (!source_->is_resident()) scratch_.resize(std::max<size_t>(scratch_.size(), bytes));
  const absl::Span<const std::byte> slab_bytes = source_->Read(
      output.native_index, static_cast<uint64_t>(rows.begin) * row_bytes, bytes, absl::MakeSpan(scratch_));
  const absl::StatusOr<TypedTensor> on_bytes = TensorOnBytes(slab, slab_bytes, source_);
  if (!on_bytes.ok()) return on_bytes.status();
  const absl::StatusOr<TypedTensor> made = MakeHfTensor(OfRows(output.planned, rows, keeps_rows), *on_bytes);
  return made.ok() ? OnHost(*made) : made;
}

absl::Status TorchVerifier::ConvertAndCompare(const TensorPart& part, const VersionPlan::Output& output,
                                              absl::Span<const std::byte> bytes) {
  const TensorSpec& native = plan_.native[output.native_index];
  const Rows rows = RowsOf(native, output.planned);
  const bool keeps_rows = output.planned.transform != Transform::kOnes && KeepsRows(native, output.planned);
  int64_t at_once = rows.end - rows.begin;
  if (keeps_rows) {
    const uint64_t row_bytes = native.ByteSize() / static_cast<uint64_t>(native.shape[0]);
    at_once = static_cast<int64_t>(std::max<uint64_t>(1, kSlabBytes / row_bytes));
  }
  uint64_t compared = 0;
  int64_t row = rows.begin;
  do {
    const Rows next{row, std::min(row + at_once, rows.end)};
    const absl::StatusOr<TypedTensor> value = Convert(output, next, keeps_rows);
    if (!value.ok()) return value.status();
    const absl::StatusOr<absl::Span<const std::byte>> expected = BytesOf(*value);
    if (!expected.ok()) return expected.status();
    if (absl::Status status = CompareRows(part, compared, bytes, *expected); !status.ok()) return status;
    compared += expected->size();
    row = next.end;
  } while (row < rows.end);
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
  options.keep_family_dtypes = expected.keep_family_dtypes;
  absl::StatusOr<std::shared_ptr<const Adapter>> adapter =
      FindAdapter(expected.adapter, expected.adapter_options, expected.source->tensors());
  if (!adapter.ok()) return adapter.status();
  absl::StatusOr<VersionPlan> plan = PlanVersion(**adapter, expected.source->tensors(), options);
  if (!plan.ok()) return plan.status();
  absl::StatusOr<LayoutRules> rules = LayoutRules::Compile(expected.rules);
  if (!rules.ok()) return rules.status();
  return std::make_unique<TorchVerifier>(std::move(expected.source), *std::move(plan), *std::move(rules));
}

}  // namespace refit::cli
