#include "server/access/authorizer.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/net/credentials.h"
#include "refit/tensor_spec.h"

namespace refit {
namespace {

std::optional<Role> ParseRole(absl::string_view name) {
  for (const Role role : {Role::kViewer, Role::kWorker, Role::kRelay, Role::kTrainer}) {
    if (name == RoleName(role)) return role;
  }
  return std::nullopt;
}

// Tokens are stored and compared as digests.
std::string DigestOf(absl::string_view token) {
  std::string digest(SHA256_DIGEST_LENGTH, '\0');
  SHA256(reinterpret_cast<const unsigned char*>(token.data()), token.size(),
         reinterpret_cast<unsigned char*>(digest.data()));
  return digest;
}

absl::StatusOr<std::string> TokenKey(absl::string_view token) {
  if (absl::Status status = CheckToken(token); !status.ok()) return status;
  return DigestOf(token);
}

absl::StatusOr<std::string> NameKey(absl::string_view name) { return std::string(name); }

using MakeKey = absl::StatusOr<std::string> (*)(absl::string_view);

// Messages never quote the line: it may hold a secret in the wrong place.
absl::Status ParseLine(absl::string_view line, MakeKey make_key, std::map<std::string, Role>& roles) {
  const std::pair<absl::string_view, absl::string_view> words =
      absl::StrSplit(line, absl::MaxSplits(absl::ByAnyChar(" \t"), 1));
  const std::optional<Role> role = ParseRole(words.first);
  const absl::string_view subject = absl::StripAsciiWhitespace(words.second);
  if (!role.has_value() || subject.empty()) {
    return absl::InvalidArgumentError("expected a role (trainer, relay, worker or viewer), a space, and what has it");
  }
  absl::StatusOr<std::string> key = make_key(subject);
  if (!key.ok()) return key.status();
  if (!roles.emplace(*std::move(key), *role).second) {
    return absl::InvalidArgumentError("a line above has given a role to the same already");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::map<std::string, Role>> Parse(absl::string_view text, const std::string& path, MakeKey make_key) {
  std::map<std::string, Role> roles;
  int number = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    line = absl::StripAsciiWhitespace(line);
    if (line.empty() || line.front() == '#') continue;
    if (absl::Status status = ParseLine(line, make_key, roles); !status.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("'", path, "', line ", number, ": ", status.message()));
    }
  }
  if (roles.empty()) return absl::InvalidArgumentError(absl::StrCat("'", path, "' gives nobody a role"));
  return roles;
}

absl::StatusOr<std::map<std::string, Role>> ReadTokens(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadSecretFile(path);
  if (!text.ok()) return text.status();
  return Parse(*text, path, TokenKey);
}

absl::StatusOr<std::map<std::string, Role>> ReadRoles(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadSmallFile(path);
  if (!text.ok()) return text.status();
  return Parse(*text, path, NameKey);
}

// The token of a call's only "authorization: Bearer". nullopt if the call has no such header; empty if it has another.
std::optional<absl::string_view> TokenOf(const grpc::CallbackServerContext& context) {
  const auto [begin, end] = context.client_metadata().equal_range("authorization");
  if (begin == end) return std::nullopt;
  absl::string_view value(begin->second.data(), begin->second.size());
  constexpr absl::string_view kScheme = "Bearer ";
  if (std::next(begin) != end || !absl::StartsWithIgnoreCase(value, kScheme)) return "";
  return value.substr(kScheme.size());
}

// Compares with all tokens, so that the time does not reveal how close a guess was.
std::optional<Role> RoleOfToken(const std::map<std::string, Role>& tokens, absl::string_view token) {
  const std::string digest = DigestOf(token);
  std::optional<Role> found;
  for (const auto& [known, role] : tokens) {
    if (CRYPTO_memcmp(known.data(), digest.data(), digest.size()) == 0) found = role;
  }
  return found;
}

// The names in a verified certificate, CN first.
std::vector<std::string> CertificateNames(const grpc::CallbackServerContext& context) {
  std::vector<std::string> names;
  const std::shared_ptr<const grpc::AuthContext> peer = context.auth_context();
  if (peer == nullptr || !peer->IsPeerAuthenticated()) return names;
  for (const char* property : {GRPC_X509_CN_PROPERTY_NAME, GRPC_X509_SAN_PROPERTY_NAME}) {
    for (const grpc::string_ref& name : peer->FindPropertyValues(property)) {
      names.emplace_back(name.data(), name.size());
    }
  }
  return names;
}

// For messages, cut if the certificate has many names.
std::string Describe(const std::vector<std::string>& names) {
  constexpr size_t kShown = 4;
  std::string text;
  for (size_t i = 0; i < names.size() && i < kShown; ++i)
    absl::StrAppend(&text, i ? ", '" : "'", Printable(names[i]), "'");
  return names.size() > kShown ? text + ", ..." : text;
}

}  // namespace

const char* RoleName(Role role) {
  switch (role) {
    case Role::kViewer:
      return "viewer";
    case Role::kWorker:
      return "worker";
    case Role::kRelay:
      return "relay";
    case Role::kTrainer:
      return "trainer";
  }
  return "unknown";
}

absl::StatusOr<std::shared_ptr<const Authorizer>> Authorizer::Load(const AuthorizationFiles& files,
                                                                   ReloadReport report) {
  auto authorizer = std::make_shared<Authorizer>();
  if (!files.tokens.empty()) {
    auto tokens = WatchedFile<Roles>::Load(files.tokens, ReadTokens, report);
    if (!tokens.ok()) return tokens.status();
    authorizer->tokens_ = *std::move(tokens);
  }
  if (!files.roles.empty()) {
    auto roles = WatchedFile<Roles>::Load(files.roles, ReadRoles, std::move(report));
    if (!roles.ok()) return roles.status();
    authorizer->roles_ = *std::move(roles);
  }
  return authorizer;
}

absl::StatusOr<Authorizer::Peer> Authorizer::Identify(const grpc::CallbackServerContext& context) const {
  if (const std::optional<absl::string_view> token = TokenOf(context); token.has_value() && tokens_ != nullptr) {
    if (const std::optional<Role> role = RoleOfToken(*tokens_->Get(), *token)) return Peer{"a token", *role};
    return absl::UnauthenticatedError("the token is none that this service knows");
  }
  const std::vector<std::string> names = CertificateNames(context);
  if (roles_ != nullptr) {
    const std::shared_ptr<const Roles> roles = roles_->Get();
    std::optional<Role> best;
    for (const std::string& name : names) {
      const auto found = roles->find(name);
      if (found != roles->end() && (!best.has_value() || found->second > *best)) best = found->second;
    }
    if (best.has_value()) return Peer{absl::StrCat("the certificate of ", Describe(names)), *best};
  }
  if (names.empty()) {
    return absl::UnauthenticatedError(absl::StrCat("this service wants to know who calls: give ",
                                                   tokens_ != nullptr ? "a token" : "a certificate that has a role",
                                                   tokens_ != nullptr && roles_ != nullptr ? " or a certificate" : ""));
  }
  return absl::UnauthenticatedError(absl::StrCat("the certificate of ", Describe(names), " has no role here",
                                                 tokens_ != nullptr ? ", and no token came" : ""));
}

absl::Status Authorizer::Check(const grpc::CallbackServerContext& context, Role needed) const {
  if (tokens_ == nullptr && roles_ == nullptr) return absl::OkStatus();
  const absl::StatusOr<Peer> peer = Identify(context);
  if (!peer.ok()) return peer.status();
  if (peer->role >= needed) return absl::OkStatus();
  return absl::PermissionDeniedError(absl::StrCat("this call needs the role ", RoleName(needed), "; ", peer->name,
                                                  " has the role ", RoleName(peer->role), " (", context.peer(), ")"));
}

}  // namespace refit
