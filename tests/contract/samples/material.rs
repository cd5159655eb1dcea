//! Certificates, keys and signatures for the samples: public halves that were made once with `pki` and whose private
//! halves are gone, so that what stands in the golden files also verifies.

/// The self-signed certificate of the first host authority.
pub(crate) const FIRST_CA: &str = "MIIB0zCCAXmgAwIBAgIQY1ZMFq+X2UORPAl2m2SXGDAKBggqhkjOPQQDAjBCMRUwEwYDVQQKDAxhY21lLmNsdXN0ZXIxHTAbBgNVBAMMFGFjbWUuY2x1c3RlciBob3N0IENBMQowCAYDVQQFDAExMB4XDTI2MDgyMTAxMzkzNloXDTM2MDgyMTAxNDQzNlowQjEVMBMGA1UECgwMYWNtZS5jbHVzdGVyMR0wGwYDVQQDDBRhY21lLmNsdXN0ZXIgaG9zdCBDQTEKMAgGA1UEBQwBMTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABG9HGwQU2/5Npi6xyHeOYLFI5QbUA+eGb290CfEFWsHcnemqQFyuG8lYYcpMQbDlipKhsvZ07vWdjAKYGwKQ5gKjUTBPMA4GA1UdDwEB/wQEAwIBBjApBgNVHQ4EIgQgkjO/YO3/dkoZIhk05m4DbQufirzlsDnJflfRizPhG8swEgYDVR0TAQH/BAgwBgEB/wIBADAKBggqhkjOPQQDAgNIADBFAiBuR9KMz6oAk0zRM/OI5gm4JyhmDCPLur5lDg8aLB4CBAIhAIYSy7g6CXPWQ7C6KKt02xycE3XRS1JhAxzgAyv21SYu";
/// Its pin.
pub(crate) const FIRST_CA_PIN: &str =
    "sha256:9233bf60edff764a19221934e66e036d0b9f8abce5b039c97e57d18b33e11bcb";
/// The self-signed certificate of the second one, prepared in the rotation.
pub(crate) const SECOND_CA: &str = "MIIB1DCCAXmgAwIBAgIQSmZgWaOoTp4UfvW7kDhJYTAKBggqhkjOPQQDAjBCMRUwEwYDVQQKDAxhY21lLmNsdXN0ZXIxHTAbBgNVBAMMFGFjbWUuY2x1c3RlciBob3N0IENBMQowCAYDVQQFDAEyMB4XDTI2MDkyMDAxMzkzNloXDTM2MDkyMDAxNDQzNlowQjEVMBMGA1UECgwMYWNtZS5jbHVzdGVyMR0wGwYDVQQDDBRhY21lLmNsdXN0ZXIgaG9zdCBDQTEKMAgGA1UEBQwBMjBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABBC2SC1NEQjBmQQXdXwn0oVhLAvilA3T7/c9Pf21At7F2pkf3uE2AR4WQa47l/hA9hgu90pFjHVZZsVQyg0BBN+jUTBPMA4GA1UdDwEB/wQEAwIBBjApBgNVHQ4EIgQg+AW5sAeWEsU4dBUWJU9X4q2uBaBfzNAsvfWV8XOgyLAwEgYDVR0TAQH/BAgwBgEB/wIBADAKBggqhkjOPQQDAgNJADBGAiEAkMaNvJbRpVKT44Wd9PWSqZZsh7N7cZdJjQ1vOYJuzm4CIQDDX/69g9poj3Nq8lBfwMJAfKlvCywzM+hmoQO9ivEQ5A==";
/// Its pin.
pub(crate) const SECOND_CA_PIN: &str =
    "sha256:f805b9b0079612c538741516254f57e2adae05a05fccd02cbdf595f173a0c8b0";
/// A client certificate that the second authority issued to the node.
pub(crate) const LEAF: &str = "MIIChzCCAi2gAwIBAgIQXyPQmgB8Y06ve4tzuKZakTAKBggqhkjOPQQDAjBCMRUwEwYDVQQKDAxhY21lLmNsdXN0ZXIxHTAbBgNVBAMMFGFjbWUuY2x1c3RlciBob3N0IENBMQowCAYDVQQFDAEyMB4XDTI2MDkyMDAxNDkzNloXDTI2MDkyMTAxNTQzNlowJzEVMBMGA1UECgwMYWNtZS5jbHVzdGVyMQ4wDAYDVQQDDAV3ZWItMTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABBLJQeHQHz7PHFipbLK4KlJv4u5pgWCewbICE3lQNobX7mn+zOq3hOLn2xcj5cqDCWxiEolFA5uGnMNeEDnSizSjggEeMIIBGjArBgNVHSMEJDAigCD4BbmwB5YSxTh0FRYlT1fira4FoF/M0Cy99ZXxc6DIsDCBjAYDVR0RBIGEMIGBhkFjYXJvdXNlbDovL2FjbWUuY2x1c3Rlci9ub2RlLzAxYTAyMWZkLWNiYTAtN2IyMi05YTUxLTBjNGY2ZDJlOGEwMoISd2ViLTEuYWNtZS5leGFtcGxlghB3d3cuYWNtZS5leGFtcGxlhwTAAAIHhxAgAQ24AAAAAAAAAAAAAAAHMA4GA1UdDwEB/wQEAwIHgDATBgNVHSUEDDAKBggrBgEFBQcDAjApBgNVHQ4EIgQgSzw7enrDKqILPPLppzfZSiJl/yDOW+qC4lNiR/XvZTcwDAYDVR0TAQH/BAIwADAKBggqhkjOPQQDAgNIADBFAiEA1bmHpo+FA+en4a7TmG23Itvtt8JidxbSyRjwCabaDuQCIEQ7DLJBPC2llY6puugYeOT5+yAqPrQUR1hnIvXF76YN";
/// Its SHA-256.
pub(crate) const LEAF_DIGEST: &str =
    "sha256:0281e990db7f045b3801099f2b4967cd4f24af1c31c66134fba4984aa3046162";
/// Its serial.
pub(crate) const LEAF_SERIAL: &str = "5f23d09a007c634eaf7b8b73b8a65a91";
/// Its public key.
pub(crate) const LEAF_KEY: &str = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEEslB4dAfPs8cWKlssrgqUm/i7mmBYJ7BsgITeVA2htfuaf7M6reE4ufbFyPlyoMJbGISiUUDm4acw14QOdKLNA==";
/// The pin of that key.
pub(crate) const LEAF_PIN: &str = "sha256:4b3c3b7a7ac32aa20b3cf2e9a737d94a2265ff20ce5bea82e2536247f5ef6537";
/// The bundle key that `init` made and joining nodes pinned.
pub(crate) const BUNDLE_KEY: &str = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEdTHQjnvSVNmMhqsIdvozjS6NYhdwG2lrB+65arO8U/JPAqA1Ab++1bTl4/yGDbXlmipS6fyO2Zb3vDu1of9Szw==";
/// Its pin.
pub(crate) const BUNDLE_PIN: &str = "sha256:b4562bf78924f210680a761bbb8c5afab6d6df90bf55053debb6683a24be1b35";
/// The bundle key that replaced it.
pub(crate) const BUNDLE_KEY_2: &str = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEn2Fsclx7AHcMhd0pDNcJSPDTHAEIbnfNLcAhLeDROU2XrteBp3o0RZeZf9403M7hGm8eirwbA7A3G68d5MTsMg==";
/// Its pin.
pub(crate) const BUNDLE_PIN_2: &str =
    "sha256:9f08be0ff474baefa45bc17bbc2dec1a44bff29d643e23ef4ccbd8719c414de7";
/// The document of the replacement, signed by the old key.
pub(crate) const REPLACED_BY_OLD: &str =
    "MEQCIG11TaeSz0j2gmHzZ990FMFzgpmJxf81/PqfJFc8kxzHAiBZgArD3gHdoty0ZaljJT6++09MAXJwKxFS0aDZ6Z/43w==";
/// The same, signed by the new key.
pub(crate) const REPLACED_BY_NEW: &str =
    "MEQCIDqIWmULkrXGPukXxrgFBRKEUK+1Fxapf+87PNSndsBwAiBKfi1pvAs/VVoVa/k1muBQtCQuHBh3NLbz0i/Lpyt25w==";
/// A bundle of the host authorities, as signed.
pub(crate) const BUNDLE: &str = "{\"cluster\":\"acme.cluster\",\"type\":\"host\",\"rotation\":\"01a0bc7c-93a0-7a11-8c3d-5e0f9a6b7c01\",\"phase\":\"update_clients\",\"revision\":4711,\"authorities\":[{\"id\":\"sha256:9233bf60edff764a19221934e66e036d0b9f8abce5b039c97e57d18b33e11bcb\",\"kind\":\"tls\",\"status\":\"active\",\"generation\":1,\"certificate\":\"MIIB0zCCAXmgAwIBAgIQY1ZMFq+X2UORPAl2m2SXGDAKBggqhkjOPQQDAjBCMRUwEwYDVQQKDAxhY21lLmNsdXN0ZXIxHTAbBgNVBAMMFGFjbWUuY2x1c3RlciBob3N0IENBMQowCAYDVQQFDAExMB4XDTI2MDgyMTAxMzkzNloXDTM2MDgyMTAxNDQzNlowQjEVMBMGA1UECgwMYWNtZS5jbHVzdGVyMR0wGwYDVQQDDBRhY21lLmNsdXN0ZXIgaG9zdCBDQTEKMAgGA1UEBQwBMTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABG9HGwQU2/5Npi6xyHeOYLFI5QbUA+eGb290CfEFWsHcnemqQFyuG8lYYcpMQbDlipKhsvZ07vWdjAKYGwKQ5gKjUTBPMA4GA1UdDwEB/wQEAwIBBjApBgNVHQ4EIgQgkjO/YO3/dkoZIhk05m4DbQufirzlsDnJflfRizPhG8swEgYDVR0TAQH/BAgwBgEB/wIBADAKBggqhkjOPQQDAgNIADBFAiBuR9KMz6oAk0zRM/OI5gm4JyhmDCPLur5lDg8aLB4CBAIhAIYSy7g6CXPWQ7C6KKt02xycE3XRS1JhAxzgAyv21SYu\"},{\"id\":\"sha256:f805b9b0079612c538741516254f57e2adae05a05fccd02cbdf595f173a0c8b0\",\"kind\":\"tls\",\"status\":\"prepared\",\"generation\":2,\"certificate\":\"MIIB1DCCAXmgAwIBAgIQSmZgWaOoTp4UfvW7kDhJYTAKBggqhkjOPQQDAjBCMRUwEwYDVQQKDAxhY21lLmNsdXN0ZXIxHTAbBgNVBAMMFGFjbWUuY2x1c3RlciBob3N0IENBMQowCAYDVQQFDAEyMB4XDTI2MDkyMDAxMzkzNloXDTM2MDkyMDAxNDQzNlowQjEVMBMGA1UECgwMYWNtZS5jbHVzdGVyMR0wGwYDVQQDDBRhY21lLmNsdXN0ZXIgaG9zdCBDQTEKMAgGA1UEBQwBMjBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABBC2SC1NEQjBmQQXdXwn0oVhLAvilA3T7/c9Pf21At7F2pkf3uE2AR4WQa47l/hA9hgu90pFjHVZZsVQyg0BBN+jUTBPMA4GA1UdDwEB/wQEAwIBBjApBgNVHQ4EIgQg+AW5sAeWEsU4dBUWJU9X4q2uBaBfzNAsvfWV8XOgyLAwEgYDVR0TAQH/BAgwBgEB/wIBADAKBggqhkjOPQQDAgNJADBGAiEAkMaNvJbRpVKT44Wd9PWSqZZsh7N7cZdJjQ1vOYJuzm4CIQDDX/69g9poj3Nq8lBfwMJAfKlvCywzM+hmoQO9ivEQ5A==\"}],\"denied\":[{\"serial\":\"76ab19407f372b32c647fb6a328cca82\",\"digest\":\"sha256:35fa39899a16e54ff2f6e3c98de5391f3b58ed7af1ccf9a4b7c66b4b23bfa69f\",\"not_after\":\"2026-09-20T04:44:36.000Z\"}],\"expires\":\"2026-09-21T01:54:36.000Z\"}";
/// Its signature by the newer bundle key.
pub(crate) const BUNDLE_SIGNATURE: &str =
    "MEQCID53qBPNEoppmMpSZgCFsNWjbqLQjhQbDkIg4BmZYjqPAiB13G6aBxxf18iU6bb04G0YEV26jbgov5YFoh8BXT0A0Q==";
