//! What `auth sign` and `auth token` leave in a log: an SSH certificate that verifies, and a token that nobody can open.

use domain::event::{AuthorizationGranted, CertificateIssued};

use super::{Sample, by_alice, by_signer, minutes};

/// The key that signed [`SSH_ISSUED`]: SubjectPublicKeyInfo, DER, base64.
pub(crate) const SSH_CA: &str = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEN8LL9/+EGwqKZc4+9Sno5E7N1U+mtyzAZS9ggU53eOHclepuFRMJSDMxiXu91l0YsMDMAiR1BRhBqsdjKWbedw==";

const SSH_GRANTED: &str = r#"{
    "authorization": "01a220eb-d3cf-7ea9-92f9-868db5e9ac75",
    "holder": "external/deploy",
    "type": "openssh",
    "issuer": "sha256:a24a0629309cbea84b8dd649a076918ce3f06f6a06dda813beba7f382d7a1b99",
    "usage": "client",
    "occasion": "signing",
    "spki": "sha256:066672b2471417b8c2056c8f27a812649ec9af32d6ce12effd422f72791839b9",
    "public_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJWw7vloX3I+D7UPa7SwjYqUMToYuQqHYm0WFuK1koCB",
    "common_name": "deploy",
    "names": [],
    "addresses": [],
    "uri": "carousel://acme.cluster/external/deploy",
    "serial": "0000000000000000b341dbc1951d8d02",
    "not_before": "2026-11-28T06:45:55.823Z",
    "not_after": "2026-11-28T07:50:55.823Z",
    "phase": "standby",
    "form": {
        "kind": "ssh",
        "principals": [
            "deploy"
        ],
        "critical_options": {
            "source-address": "10.0.0.0/8"
        },
        "extensions": [
            "permit-pty"
        ]
    }
}"#;

const SSH_ISSUED: &str = r#"{
    "authorization": "01a220eb-d3cf-7ea9-92f9-868db5e9ac75",
    "holder": "external/deploy",
    "type": "openssh",
    "issuer": "sha256:a24a0629309cbea84b8dd649a076918ce3f06f6a06dda813beba7f382d7a1b99",
    "usage": "client",
    "serial": "0000000000000000b341dbc1951d8d02",
    "spki": "sha256:066672b2471417b8c2056c8f27a812649ec9af32d6ce12effd422f72791839b9",
    "digest": "sha256:224e7f221cfb2910d13fc3a0fdde55a4e0b341ae5057eca6505520cfd5a2ba16",
    "not_after": "2026-11-28T07:50:55.823Z",
    "kind": "ssh",
    "certificate": "ssh-ed25519-cert-v01@openssh.com AAAAIHNzaC1lZDI1NTE5LWNlcnQtdjAxQG9wZW5zc2guY29tAAAAIHLVoKMiv/1ENv8gnYsMbmmu2wlsO87gOsBekNEBoVlrAAAAIJWw7vloX3I+D7UPa7SwjYqUMToYuQqHYm0WFuK1koCBs0HbwZUdjQIAAAABAAAAJ2Nhcm91c2VsOi8vYWNtZS5jbHVzdGVyL2V4dGVybmFsL2RlcGxveQAAAAoAAAAGZGVwbG95AAAAAGsKeKMAAAAAawqH3wAAACQAAAAOc291cmNlLWFkZHJlc3MAAAAOAAAACjEwLjAuMC4wLzgAAAASAAAACnBlcm1pdC1wdHkAAAAAAAAAAAAAAGgAAAATZWNkc2Etc2hhMi1uaXN0cDI1NgAAAAhuaXN0cDI1NgAAAEEEN8LL9/+EGwqKZc4+9Sno5E7N1U+mtyzAZS9ggU53eOHclepuFRMJSDMxiXu91l0YsMDMAiR1BRhBqsdjKWbedwAAAGMAAAATZWNkc2Etc2hhMi1uaXN0cDI1NgAAAEgAAAAgLOlH0dMayHbG9lJPwCLZU/8wIrizt6h+eCRWN8mSJdEAAAAgMSObduPmu35PytskF+BkV9jz/lkytZnVJQtbIhfZL+A="
}"#;

const TOKEN_GRANTED: &str = r#"{
    "authorization": "01a220eb-d43e-7f32-9677-70d5faf9fbcf",
    "holder": "external/billing",
    "type": "jwt",
    "issuer": "sha256:ca0b554c0e925b87bdb9ae443f27eafa27bd944d5f2097fcee25975f3d6208a1",
    "usage": "client",
    "occasion": "signing",
    "spki": "sha256:a38e83d42d14e1ba7d8ba7ad493c493c5efbd3ba7aaf64095de8909ed723be33",
    "public_key": "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE/x3Zx9TSKxvoiSZ35FW5UCqyKvH3fjcaM4K/K550oVUNwjkvN8MOhplaRagutLJbJNmz4PiTNw8wddEIlqlnKA==",
    "common_name": "billing",
    "names": [],
    "addresses": [],
    "uri": "carousel://acme.cluster/external/billing",
    "serial": "6faa9b465488733dd61e48eeccd39ba4",
    "not_before": "2026-11-28T06:50:45.934Z",
    "not_after": "2026-11-28T07:05:55.934Z",
    "phase": "standby",
    "form": {
        "kind": "jwt",
        "issuer": "https://ca.acme.example/v1/oidc/jwt",
        "audience": [
            "https://api.acme.example"
        ]
    }
}"#;

const TOKEN_ISSUED: &str = r#"{
    "authorization": "01a220eb-d43e-7f32-9677-70d5faf9fbcf",
    "holder": "external/billing",
    "type": "jwt",
    "issuer": "sha256:ca0b554c0e925b87bdb9ae443f27eafa27bd944d5f2097fcee25975f3d6208a1",
    "usage": "client",
    "serial": "6faa9b465488733dd61e48eeccd39ba4",
    "spki": "sha256:a38e83d42d14e1ba7d8ba7ad493c493c5efbd3ba7aaf64095de8909ed723be33",
    "digest": "sha256:6da5b5114d8d4bc8858c3d9a848ce6a0ff63c0ec4f7b01082d9b7a89f2b15be1",
    "not_after": "2026-11-28T07:05:55.934Z",
    "kind": "jwt",
    "certificate": "eyJhbGciOiJFQ0RILUVTIiwiZW5jIjoiQTI1NkdDTSIsImVwayI6eyJrdHkiOiJFQyIsImNydiI6IlAtMjU2IiwieCI6InR6VlJ1cERHVXZlNzZGaWpidUlSdDRxUk1WR0hhYkg0SzVIQ0l0Y0dBTHMiLCJ5IjoiNTFwd0Q5M1UtbjJmbjVZOTIxTHRUd0tRMkZLdlRuVzFsa1pCQUN2ZURXOCJ9fQ..3tcRvsgUoiOntSbp.qrtkYSgvE8a-p2GJ0c-6-e2tjNDaAf3plze410r0eHVv9mqwCB7Pj5ZkemMDIGYGFhK9kz_dyXIRfA-46BcyuIBT9p-RcGHVR1MwWbNWhGFbh835vRtQlhZNfTpu20Tf7fy5cwWlg_ep5PSxpO47OA3wEf6mqhtUQKkMEfNhKW0vo_k_wXd6Sx0nFVUUC-b5U_BzU7DVI6U5MCpzeNn81Axi5d17DEL27Teb0W6pDUJb8mas9IC7b5yq48DyBUq3CjNQYV19IXVz8uL2qU0OiVj3bJK9j-8RSIflQIFPlxMRsS4b-7VARZe-s0gaDONhH541hmr4sk7EQRiVIZeMaZHGG2vdEp3gcnsavlG-SnQwsjbJvGWD6ERNzbL3gPQLfGhaMVlujYHFQ7VlNC_i54e5VV-E8DXFdq_gukcJwrfG7VuIayrTqQ_1VTRIoC65gXSK4_PptnrSuwR-HTvgxlT8vixrJ_u9FoN1BPCruDx8kFyylOw50ShA9DGdYQY58-16RjfelGqDRwwd5dmdCFWDAapDmXq6H9sbrnet7n4zrfFym6FFXd6ZFWY.BWBAgfxGlqbOiwrb0AtSVw"
}"#;

pub(super) fn samples() -> Vec<Sample> {
    let granted = |text: &str| serde_json::from_str::<AuthorizationGranted>(text).expect("an authorisation");
    let issued = |text: &str| serde_json::from_str::<CertificateIssued>(text).expect("what was issued");
    vec![
        Sample::later("ssh", granted(SSH_GRANTED), by_alice(minutes(11))),
        Sample::later("ssh", issued(SSH_ISSUED), by_signer(minutes(11))),
        Sample::later("jwt", granted(TOKEN_GRANTED), by_alice(minutes(12))),
        Sample::later("jwt", issued(TOKEN_ISSUED), by_signer(minutes(12))),
    ]
}
