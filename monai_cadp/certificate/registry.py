# SPDX-License-Identifier: Apache-2.0
"""A record for the OpenDP Deployments Registry, made of a verified certificate."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_cadp.certificate.certificate import Verified
from monai_cadp.certificate.document import CertificateError
from monai_cadp.certificate.findings import findings

__all__ = ["CURATORS", "read_about", "registry_record", "to_yaml"]

# What a certificate does not know, and the curator has to say.
CURATORS = ("name", "description", "intended_use", "data_product_region", "registry_authors")
UNKNOWN = "To be stated by the curator"


def registry_record(result: Verified, about: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the fields of a record of tier 3, as the schema of the registry names them.

    Args:
        result: of a verification.
        about: the fields of :data:`CURATORS` that are known; the others say that they are to be stated.

    Raises:
        CertificateError: if ``about`` has another field, or the folder holds releases of several kinds.

    References:
        The registry, registry.opendp.org; its schema, schemas/deployments-schema.yaml in
        opendp/deployments-registry-data.
    """
    statement, about = result.statement, dict(about or {})
    if unknown := sorted(set(about) - set(CURATORS), key=str):
        raise CertificateError(f"{unknown[0]!r} is no field of the curator's; expected {', '.join(CURATORS)}.")
    if len(statement["guarantees"]) != 1:
        raise CertificateError("The folder holds releases of several kinds; a record of the registry is about one.")
    guarantee = statement["guarantees"][0]["guarantee"]
    whole = statement["set_guarantee"]
    epsilon, delta, unit = float(guarantee["epsilon"]), float(guarantee["delta"]), guarantee["unit"]
    said = {name: about.get(name, UNKNOWN) for name in CURATORS}
    authors = said.pop("registry_authors")
    found = findings(result)
    details = [f"Every {unit} is released by a local randomizer; epsilon and delta are those of one release."]
    if whole is not None:
        details.append(
            f"To those who see the shuffled set alone, epsilon {whole['epsilon']} and delta {whole['delta']} hold."
        )
    return {
        "url_slug": f"monai-cadp-{result.public_key[:8]}-{statement['issued']}",
        "status": "Draft",
        "tier": 3,
        "deployment": {
            "basic": {
                **said,
                "data_curators": [statement["signer"] or UNKNOWN],
                "data_product_type": "Synthetic data",
                "data_product_sector": "Healthcare",
                "publication_date": statement["issued"],
            },
            "dp_variant": {
                "variant_name": "Approximate DP" if delta else "Pure DP",
                "data_domain": f"Any {unit} of the size and range that the network takes, with the same public facts.",
                "unprotected_quantities": ", ".join([*guarantee["public"], "the number of releases"]),
            },
            "privacy_loss": {
                "privacy_unit": unit,
                "privacy_unit_details": f"Replace-one: any two of one {unit} with the same public facts are adjacent.",
                "privacy_parameters": {"epsilon": epsilon, **({"delta": delta} if delta else {})},
                "privacy_parameters_details": " ".join(details),
            },
            "deployment_model": {
                "model_name": "Central",
                "model_name_details": "The curator reads the originals, and applies a local randomizer to each.",
                "actors": "The curator is trusted with the originals; whoever sees the released folder is not trusted.",
                "release_type": "One release",
                "data_source_type": "Static",
                "access_type": "Non-interactive",
            },
            "accounting": {
                "post_processing": "Decoding by an invertible network with fresh noise; clipping to a public range.",
                "composition": "; ".join(found["Derived anew"]),
            },
            "implementation": {
                "preprocessing_and_hyperparameter_tuning": "; ".join(dict.fromkeys(result.training)),
                "mechanisms": f"{guarantee['mechanism']} of monai_cadp, drawn in exact integers",
                "justification": "; ".join([*found["Checked"], *found["Taken from the signer's word"]]),
            },
            "administrative": {"registry_authors": authors if isinstance(authors, list) else [authors]},
        },
    }


def read_about(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the curator's fields from a YAML file.

    Raises:
        CertificateError: if it is not usable.
    """
    import yaml

    about = None
    try:
        about = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        pass
    if not isinstance(about, dict):
        raise CertificateError(f"The curator's fields could not be read; expected YAML with {', '.join(CURATORS)}.")
    return about


def to_yaml(record: Mapping[str, Any]) -> str:
    """Return a record as the registry keeps it."""
    import yaml

    return str(yaml.safe_dump(dict(record), sort_keys=False, allow_unicode=True, width=100))
