// The adapters that this process knows: those that are built in, and those that its owner has read from files.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/adapters/family.h"
#include "common/adapters/plan.h"

namespace refit {

// The family's adapter with these options. "" means "gemma4_moe". NOT_FOUND, listing the known names, if there is none;
// INVALID_ARGUMENT for options that it does not have.
absl::StatusOr<std::shared_ptr<const Adapter>> FindAdapter(absl::string_view name, const AdapterOptions& options = {});

// The same; "auto" means the family that these native tensors are recognised as. Errors as RecogniseFamily, too.
absl::StatusOr<std::shared_ptr<const Adapter>> FindAdapter(absl::string_view name, const AdapterOptions& options,
                                                           absl::Span<const TensorSpec> native);

// The family of this name, as above. NOT_FOUND, listing the known names, if there is none.
absl::StatusOr<std::shared_ptr<const Family>> FindFamily(absl::string_view name);

// All families, built-in ones first.
std::vector<std::shared_ptr<const Family>> KnownFamilies();
std::vector<std::string> AdapterNames();

// Reads a family from a file, and knows it from now on, for good. INVALID_ARGUMENT, with file and line, for what is
// wrong in it; ALREADY_EXISTS for a name that is known, unless by the same text; NOT_FOUND for a file that cannot be
// read. Thread-safe.
absl::Status AddAdapterFile(const std::string& path);

}  // namespace refit
