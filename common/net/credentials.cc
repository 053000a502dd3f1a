#include "common/net/credentials.h"

#include <grpcpp/security/tls_certificate_verifier.h>
#include <grpcpp/security/tls_credentials_options.h>

#include <algorithm>
#include <functional>
#include <map>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/net/address.h"
#include "common/net/status.h"

namespace refit {
namespace {

constexpr size_t kMinTokenBytes = 16;
constexpr size_t kMaxTokenBytes = 4096;

absl::StatusOr<std::string> ReadToken(const std::string& path) {
  absl::StatusOr<std::string> text = ReadSecretFile(path);
  if (!text.ok()) return text.status();
  std::string token(absl::StripAsciiWhitespace(*text));
  if (absl::Status status = CheckToken(token); !status.ok()) {
    return Annotate(status, absl::StrCat("token file '", path, "'"));
  }
  return token;
}

// gRPC calls it once for each call.
class TokenPlugin final : public grpc::MetadataCredentialsPlugin {
 public:
  explicit TokenPlugin(std::shared_ptr<WatchedFile<std::string>> token) : token_(std::move(token)) {}

  bool IsBlocking() const override { return false; }
  const char* GetType() const override { return "refit-token"; }
  grpc::string DebugString() override { return "refit-token"; }
  grpc::Status GetMetadata(grpc::string_ref, grpc::string_ref, const grpc::AuthContext&,
                           std::multimap<grpc::string, grpc::string>* metadata) override {
    metadata->emplace("authorization", absl::StrCat("Bearer ", *token_->Get()));
    return grpc::Status::OK;
  }

 private:
  const std::shared_ptr<WatchedFile<std::string>> token_;
};

// What gRPC does by default: it compares the service's name with its certificate. gRPC owns a verifier as long as it
// uses the credentials, and with it the files that they read.
class ServiceVerifier final : public grpc::experimental::ExternalCertificateVerifier {
 public:
  explicit ServiceVerifier(std::shared_ptr<const CertificateFiles> files) : files_(std::move(files)) {}

  bool Verify(grpc::experimental::TlsCustomVerificationCheckRequest* request,
              std::function<void(grpc::Status)> callback, grpc::Status* status) override {
    return by_name_.Verify(request, std::move(callback), status);
  }
  void Cancel(grpc::experimental::TlsCustomVerificationCheckRequest* request) override { by_name_.Cancel(request); }

 private:
  const std::shared_ptr<const CertificateFiles> files_;
  grpc::experimental::HostNameCertificateVerifier by_name_;
};

// Adds nothing to what gRPC does by default: it has checked a client's certificate before it asks. Owns the files, too.
class ClientVerifier final : public grpc::experimental::ExternalCertificateVerifier {
 public:
  explicit ClientVerifier(std::shared_ptr<const CertificateFiles> files) : files_(std::move(files)) {}

  bool Verify(grpc::experimental::TlsCustomVerificationCheckRequest* /*request*/,
              std::function<void(grpc::Status)> /*callback*/, grpc::Status* status) override {
    *status = grpc::Status::OK;
    return true;
  }
  void Cancel(grpc::experimental::TlsCustomVerificationCheckRequest* /*request*/) override {}

 private:
  const std::shared_ptr<const CertificateFiles> files_;
};

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> MakeTls(const ClientSecurity& security,
                                                                  const ReloadReport& report) {
  if (security.ca.empty()) {
    return absl::InvalidArgumentError("TLS needs the file of the authority that signs the service's certificate");
  }
  absl::StatusOr<std::shared_ptr<CertificateFiles>> files =
      CertificateFiles::Load({security.ca, security.certificate, security.key, TlsEnd::kClient}, report);
  if (!files.ok()) return files.status();
  grpc::experimental::TlsChannelCredentialsOptions options;
  options.set_certificate_provider((*files)->MakeProvider());
  options.watch_root_certs();
  if (!security.certificate.empty()) options.watch_identity_key_cert_pairs();
  options.set_certificate_verifier(
      grpc::experimental::ExternalCertificateVerifier::Create<ServiceVerifier>(*std::move(files)));
  return grpc::experimental::TlsCredentials(options);
}

// gRPC refuses to send tokens over channels that it does not consider secure. It accepts this kind to this host.
std::shared_ptr<grpc::ChannelCredentials> MakeLocal(const std::string& address) {
  return grpc::experimental::LocalCredentials(absl::StartsWith(address, "unix") ? UDS : LOCAL_TCP);
}

absl::StatusOr<std::shared_ptr<grpc::CallCredentials>> MakeToken(const std::string& path, const ReloadReport& report) {
  auto token = WatchedFile<std::string>::Load(path, ReadToken, report);
  if (!token.ok()) return token.status();
  return grpc::experimental::MetadataCredentialsFromPlugin(std::make_unique<TokenPlugin>(*std::move(token)),
                                                           GRPC_SECURITY_NONE);
}

}  // namespace

absl::Status CheckToken(absl::string_view token) {
  if (token.size() >= kMinTokenBytes && token.size() <= kMaxTokenBytes &&
      std::all_of(token.begin(), token.end(), [](char c) { return absl::ascii_isgraph(c); })) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat("expected one token of ", kMinTokenBytes, " to ", kMaxTokenBytes,
                                                 " visible ASCII characters, got ", token.size(), " bytes"));
}

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> MakeClientCredentials(const ClientSecurity& security,
                                                                                const std::string& address,
                                                                                const ReloadReport& report) {
  std::shared_ptr<grpc::ChannelCredentials> credentials = grpc::InsecureChannelCredentials();
  if (security.tls()) {
    absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> tls = MakeTls(security, report);
    if (!tls.ok()) return tls.status();
    credentials = *std::move(tls);
  }
  if (security.token_file.empty()) return credentials;
  if (!security.tls()) {
    if (!IsLocal(address)) {
      return absl::InvalidArgumentError(
          absl::StrCat("a token is never sent in plain text beyond this host, and '", address,
                       "' is not loopback: give the authority that signs the service's certificate (TLS)"));
    }
    credentials = MakeLocal(address);
  }
  absl::StatusOr<std::shared_ptr<grpc::CallCredentials>> token = MakeToken(security.token_file, report);
  if (!token.ok()) return token.status();
  return grpc::CompositeChannelCredentials(credentials, *token);
}

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> MakeServerCredentials(const ServerSecurity& security,
                                                                               const ReloadReport& report) {
  if (!security.tls()) {
    if (security.key.empty() && security.client_ca.empty()) {
      return grpc::InsecureServerCredentials();
    }
    return absl::InvalidArgumentError(
        "TLS needs the service's certificate, besides its key and the clients' authority");
  }
  absl::StatusOr<std::shared_ptr<CertificateFiles>> files =
      CertificateFiles::Load({security.client_ca, security.certificate, security.key, TlsEnd::kService}, report);
  if (!files.ok()) return files.status();
  grpc::experimental::TlsServerCredentialsOptions options((*files)->MakeProvider());
  options.watch_identity_key_cert_pairs();
  if (!security.client_ca.empty()) {
    options.watch_root_certs();
    options.set_cert_request_type(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  }
  options.set_certificate_verifier(
      grpc::experimental::ExternalCertificateVerifier::Create<ClientVerifier>(*std::move(files)));
  return grpc::experimental::TlsServerCredentials(options);
}

}  // namespace refit
