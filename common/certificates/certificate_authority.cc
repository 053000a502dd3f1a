#include "common/certificates/certificate_authority.h"

#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <array>
#include <ctime>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/certificates/openssl_pointers.h"

namespace refit {
namespace {

constexpr size_t kMaxCommonName = 64;
constexpr size_t kMaxHost = 253;
constexpr size_t kSerialBytes = 16;

using Names = OpensslPointer<GENERAL_NAMES, GENERAL_NAMES_free>;
using Extension = OpensslPointer<X509_EXTENSION, X509_EXTENSION_free>;

absl::Status OpensslError(const char* what) {
  std::array<char, 256> reason = {};
  ERR_error_string_n(ERR_get_error(), reason.data(), reason.size());
  ERR_clear_error();
  return absl::InternalError(absl::StrCat(what, ": ", reason.data()));
}

absl::Status CheckCommonName(const std::string& name) {
  if (!name.empty() && name.size() <= kMaxCommonName &&
      std::all_of(name.begin(), name.end(), [](char c) { return absl::ascii_isprint(c); })) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("a certificate's name is 1 to ", kMaxCommonName, " printable ASCII characters"));
}

bool IsHostName(absl::string_view host) {
  if (absl::StartsWith(host, "*.")) host.remove_prefix(2);
  return !host.empty() && host.size() <= kMaxHost && host.front() != '-' && host.front() != '.' &&
         std::all_of(host.begin(), host.end(),
                     [](char c) { return absl::ascii_isalnum(c) || c == '-' || c == '.' || c == '_'; });
}

// Built by hand: OpenSSL's parser would split a host at a comma.
absl::Status AddHost(GENERAL_NAMES& names, const std::string& host) {
  OpensslPointer<GENERAL_NAME, GENERAL_NAME_free> name(GENERAL_NAME_new());
  if (name == nullptr) return OpensslError("a host's name");
  if (ASN1_OCTET_STRING* address = a2i_IPADDRESS(host.c_str())) {
    GENERAL_NAME_set0_value(name.get(), GEN_IPADD, address);
  } else if (IsHostName(host)) {
    ASN1_IA5STRING* dns = ASN1_IA5STRING_new();
    if (dns == nullptr || ASN1_STRING_set(dns, host.data(), static_cast<int>(host.size())) != 1) {
      return OpensslError("a host's name");
    }
    GENERAL_NAME_set0_value(name.get(), GEN_DNS, dns);
  } else {
    return absl::InvalidArgumentError(absl::StrCat("'", host, "' is neither a host name nor an IP address"));
  }
  if (sk_GENERAL_NAME_push(&names, name.get()) == 0) return OpensslError("a host's name");
  (void)name.release();
  ERR_clear_error();
  return absl::OkStatus();
}

absl::Status AddHosts(X509& certificate, const std::vector<std::string>& hosts) {
  if (hosts.empty()) return absl::OkStatus();
  const Names names(sk_GENERAL_NAME_new_null());
  if (names == nullptr) return OpensslError("host names");
  for (const std::string& host : hosts) {
    if (absl::Status status = AddHost(*names, host); !status.ok()) return status;
  }
  if (X509_add1_ext_i2d(&certificate, NID_subject_alt_name, names.get(), 0, X509V3_ADD_DEFAULT) != 1) {
    return OpensslError("host names");
  }
  return absl::OkStatus();
}

absl::Status AddExtension(X509& certificate, X509& issuer, int nid, const char* value) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, &issuer, &certificate, nullptr, nullptr, 0);
  const Extension extension(X509V3_EXT_conf_nid(nullptr, &context, nid, value));
  if (extension == nullptr || X509_add_ext(&certificate, extension.get(), -1) != 1) return OpensslError(value);
  return absl::OkStatus();
}

absl::Status SetRandomSerial(X509& certificate) {
  std::array<unsigned char, kSerialBytes> bytes = {};
  if (RAND_bytes(bytes.data(), bytes.size()) != 1) return OpensslError("a serial number");
  bytes[0] &= 0x7F;
  const OpensslPointer<BIGNUM, BN_free> number(BN_bin2bn(bytes.data(), bytes.size(), nullptr));
  if (number == nullptr || BN_to_ASN1_INTEGER(number.get(), X509_get_serialNumber(&certificate)) == nullptr) {
    return OpensslError("a serial number");
  }
  return absl::OkStatus();
}

// Everything except extensions and signature.
absl::StatusOr<Certificate> MakeCertificate(const CertificateRequest& request, EVP_PKEY& key) {
  if (absl::Status status = CheckCommonName(request.common_name); !status.ok()) return status;
  Certificate certificate(X509_new());
  if (certificate == nullptr) return OpensslError("a certificate");
  if (absl::Status status = SetRandomSerial(*certificate); !status.ok()) return status;
  const auto* name = reinterpret_cast<const unsigned char*>(request.common_name.data());
  const bool made = X509_set_version(certificate.get(), X509_VERSION_3) == 1 &&
                    X509_gmtime_adj(X509_getm_notBefore(certificate.get()), request.valid_from.count()) != nullptr &&
                    X509_gmtime_adj(X509_getm_notAfter(certificate.get()), request.valid_until.count()) != nullptr &&
                    X509_set_pubkey(certificate.get(), &key) == 1 &&
                    X509_NAME_add_entry_by_NID(X509_get_subject_name(certificate.get()), NID_commonName, MBSTRING_ASC,
                                               name, static_cast<int>(request.common_name.size()), -1, 0) == 1;
  if (!made) return OpensslError("a certificate");
  return certificate;
}

absl::StatusOr<Key> MakeKey() {
  Key key(EVP_EC_gen("P-256"));
  if (key == nullptr) return OpensslError("a key");
  return key;
}

std::string Text(const Bio& bio) {
  const char* text = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &text);
  return std::string(text, static_cast<size_t>(size));
}

absl::StatusOr<std::string> ToPem(X509& certificate) {
  const Bio bio(BIO_new(BIO_s_mem()));
  if (bio == nullptr || PEM_write_bio_X509(bio.get(), &certificate) != 1) return OpensslError("a certificate");
  return Text(bio);
}

absl::StatusOr<std::string> ToPem(EVP_PKEY& key) {
  const Bio bio(BIO_new(BIO_s_mem()));
  if (bio == nullptr || PEM_write_bio_PrivateKey(bio.get(), &key, nullptr, nullptr, 0, nullptr, nullptr) != 1) {
    return OpensslError("a key");
  }
  return Text(bio);
}

absl::Status Sign(X509& certificate, X509& issuer, EVP_PKEY& issuer_key) {
  if (X509_set_issuer_name(&certificate, X509_get_subject_name(&issuer)) != 1 ||
      X509_sign(&certificate, &issuer_key, EVP_sha256()) == 0) {
    return OpensslError("a signature");
  }
  return absl::OkStatus();
}

using Extensions = std::initializer_list<std::pair<int, const char*>>;

absl::Status AddAll(X509& certificate, X509& issuer, const Extensions& extensions) {
  for (const auto& [nid, value] : extensions) {
    if (absl::Status status = AddExtension(certificate, issuer, nid, value); !status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<CertificateAuthority> CertificateAuthority::Create(const std::string& common_name,
                                                                  std::chrono::seconds valid_until) {
  absl::StatusOr<Key> key = MakeKey();
  if (!key.ok()) return key.status();
  absl::StatusOr<Certificate> made = MakeCertificate({.common_name = common_name, .valid_until = valid_until}, **key);
  if (!made.ok()) return made.status();
  X509& certificate = **made;
  absl::Status status = AddAll(certificate, certificate,
                               {{NID_basic_constraints, "critical,CA:TRUE,pathlen:0"},
                                {NID_key_usage, "critical,keyCertSign,cRLSign"},
                                {NID_subject_key_identifier, "hash"}});
  if (status.ok()) status = Sign(certificate, certificate, **key);
  if (!status.ok()) return status;
  absl::StatusOr<std::string> pem = ToPem(certificate);
  if (!pem.ok()) return pem.status();
  CertificateAuthority authority;
  authority.key_ = *std::move(key);
  authority.certificate_ = *std::move(made);
  authority.certificate_pem_ = *std::move(pem);
  return authority;
}

absl::StatusOr<IssuedCertificate> CertificateAuthority::Issue(const CertificateRequest& request) const {
  const absl::StatusOr<Key> key = MakeKey();
  if (!key.ok()) return key.status();
  const absl::StatusOr<Certificate> certificate = MakeCertificate(request, **key);
  if (!certificate.ok()) return certificate.status();
  absl::Status status = AddAll(**certificate, *certificate_,
                               {{NID_basic_constraints, "critical,CA:FALSE"},
                                {NID_key_usage, "critical,digitalSignature"},
                                {NID_ext_key_usage, request.is_server ? "serverAuth" : "clientAuth"},
                                {NID_authority_key_identifier, "keyid"}});
  if (status.ok()) status = AddHosts(**certificate, request.hosts);
  if (status.ok()) status = Sign(**certificate, *certificate_, *key_);
  if (!status.ok()) return status;
  absl::StatusOr<std::string> certificate_pem = ToPem(**certificate);
  if (!certificate_pem.ok()) return certificate_pem.status();
  absl::StatusOr<std::string> key_pem = ToPem(**key);
  if (!key_pem.ok()) return key_pem.status();
  return IssuedCertificate{*std::move(certificate_pem), *std::move(key_pem)};
}

}  // namespace refit
