"""How many machines an account may have at once, by type and use.

Source: https://docs.aws.amazon.com/general/latest/gr/sagemaker.html#limits_sagemaker
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .errors import ServiceError
from .jobs import Job

SERVICE = "sagemaker"


def usage_of(job: Job) -> str:
    """Return the name of the quota that a job takes of."""
    machines = job.request.get("ResourceConfig") or job.request["ProcessingResources"]["ClusterConfig"]
    use = "processing" if job.noun == "ProcessingJob" else "training"
    spot = "spot " if job.request.get("EnableManagedSpotTraining") else ""
    return f"{machines['InstanceType']} for {spot}{use} job usage"


def _some() -> dict[str, int]:
    return {f"ml.m5.xlarge for {use} job usage": 100 for use in ("training", "spot training", "processing")}


@dataclass
class Quotas:
    """All that are known; of others there is as much as anyone wants.

    Attributes:
        limits: Machines, by the name of the quota.
    """

    limits: dict[str, int] = field(default_factory=_some)

    def check(self, usage: str, others: Sequence[str]) -> None:
        """See that there may be one machine more.

        Raises:
            ServiceError: There may not.
        """
        used, limit = others.count(usage), self.limits.get(usage)
        if limit is not None and used >= limit:
            raise ServiceError(
                "ResourceLimitExceeded",
                f"The account-level service limit '{usage}' is {limit} Instances, with current utilization of {used} "
                "Instances and a request delta of 1 Instances. Please use AWS Service Quotas to request an increase "
                "for this quota. If AWS Service Quotas is not available, contact AWS support to request an increase "
                "for this quota.",
            )

    def list(self) -> dict[str, Any]:
        """Answer ListServiceQuotas."""
        return {"Quotas": [_described(name, limit) for name, limit in self.limits.items()]}

    def get(self, code: str) -> dict[str, Any]:
        """Answer GetServiceQuota.

        Raises:
            ServiceError: There is none of this code.
        """
        for quota in self.list()["Quotas"]:
            if quota["QuotaCode"] == code:
                return {"Quota": quota}
        raise ServiceError("NoSuchResourceException", "The request failed because the specified quota does not exist.")


def _described(name: str, limit: int) -> dict[str, Any]:
    code = f"L-{hashlib.sha256(name.encode()).hexdigest()[:8].upper()}"
    quota = {"ServiceCode": SERVICE, "QuotaCode": code, "QuotaName": name, "Value": float(limit)}
    return {**quota, "ServiceName": "Amazon SageMaker", "Adjustable": True, "GlobalQuota": False, "Unit": "None"}
