#include "common/safetensors/output_file.h"

#include "common/safetensors/new_file.h"
#include "common/safetensors/output_stream.h"
#include "common/safetensors/output_target.h"

namespace refit {

absl::StatusOr<std::unique_ptr<OutputFile>> OutputFile::Create(const std::string& path, unsigned permissions) {
  const absl::StatusOr<OutputTarget> target = ResolveOutput(path);
  if (!target.ok()) return target.status();
  if (target->kind == OutputTarget::Kind::kFile) return NewFile::Create(target->path, permissions);
  return OutputStream::Open(*target);
}

}  // namespace refit
