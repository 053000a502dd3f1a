// Owning pointers to OpenSSL's objects. For this project's own use.
#pragma once

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/x509.h>

#include <memory>

namespace refit {

template <auto Free>
struct OpensslDeleter {
  template <typename T>
  void operator()(T* object) const {
    Free(object);
  }
};
template <typename T, auto Free>
using OpensslPointer = std::unique_ptr<T, OpensslDeleter<Free>>;

using Bio = OpensslPointer<BIO, BIO_free>;
using Key = OpensslPointer<EVP_PKEY, EVP_PKEY_free>;
using Certificate = OpensslPointer<X509, X509_free>;

}  // namespace refit
