"""What jobs run on: image, machines, network."""

import re
from collections import defaultdict
from typing import Any

from ....config import load_platform
from ...spec import JobSpec
from .. import image
from .project import specs
from .result import Findings, boto_client, code_of, mend, ok, unasked

# Source: https://docs.aws.amazon.com/AmazonECR/latest/userguide/Registries.html
REGISTRY = re.compile(
    r"(?P<account>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(?:\.cn)?/(?P<repository>[^:@]+)"
    r"(?::(?P<tag>[^@]+))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
MISSING = ("RepositoryNotFoundException", "ImageNotFoundException")


def images() -> Findings:
    """See that the images are there."""
    for uri, is_own in sorted({(image.of(spec)[0], bool(spec.image)) for spec in specs().values()}):
        yield from _own(uri) if is_own else iter([ok(f"the framework's: {uri}")])


def _own(uri: str) -> Findings:
    from botocore.exceptions import ClientError

    parts, region = REGISTRY.fullmatch(uri), load_platform().region
    if not parts:
        yield unasked(f"{uri} is not in ECR, from where SageMaker takes images", "make image puts one there")
        return
    if parts["region"] != region:
        yield mend(f"{uri} is in another region than the jobs, {region}", "make image")
        return
    wanted = {"imageDigest": parts["digest"]} if parts["digest"] else {"imageTag": parts["tag"] or "latest"}
    names = {"registryId": parts["account"], "repositoryName": parts["repository"]}
    try:
        (told,) = boto_client("ecr").describe_images(**names, imageIds=[wanted])["imageDetails"]
    except ClientError as error:
        if code_of(error) not in MISSING:
            raise
        yield mend(f"there is no image {uri}: {code_of(error)}", "make image")
        return
    moves = "" if parts["digest"] else f"; the tag may move, so pin it: {uri}@{told['imageDigest']}"
    yield ok(f"{uri}{moves}")


def quotas() -> Findings:
    """See that the account may have the machines."""
    needed: dict[str, int] = defaultdict(int)
    for spec in specs().values():
        for name in quota_names(spec):
            needed[name] = max(needed[name], spec.instance_count)
    told = _told(set(needed))
    for name, count in needed.items():
        if name not in told:
            yield unasked(f"AWS names no quota {name!r}", f"see that there is this machine: {_page()}")
        elif told[name]["Value"] < count:
            yield mend(
                f"{name}: {told[name]['Value']:g}, and {count} are needed",
                f"ask for more at {_page(told[name]['QuotaCode'])}, or another instance_type in meta.job",
            )
        else:
            yield ok(f"{name}: {told[name]['Value']:g}")


def quota_names(spec: JobSpec) -> list[str]:
    """Return AWS's names of what a job takes from the account's quotas."""
    use = f"{'spot ' if spec.spot else ''}{spec.kind} job"
    warm = ["training warm pool"] if spec.keep_alive_s else []
    return [f"{spec.instance_type} for {one} usage" for one in (use, *warm)]


def _told(names: set[str]) -> dict[str, Any]:
    """Return the quotas of these names; there are more than a thousand, a hundred in an answer."""
    found: dict[str, Any] = {}
    for page in boto_client("service-quotas").get_paginator("list_service_quotas").paginate(ServiceCode="sagemaker"):
        found.update({one["QuotaName"]: one for one in page["Quotas"] if one["QuotaName"] in names})
        if len(found) == len(names):
            break
    return found


def _page(code: str = "") -> str:
    """Return the address in AWS's console."""
    region = load_platform().region
    return f"https://{region}.console.aws.amazon.com/servicequotas/home/services/sagemaker/quotas/{code}"


def networks() -> Findings:
    """See that subnets and security groups are there, in one VPC."""
    from botocore.exceptions import ClientError

    asked = {(tuple(spec.subnets), tuple(spec.security_groups)) for spec in specs().values() if spec.subnets}
    if not asked:
        yield ok("SageMaker's own: no subnets are set")
    for subnets, groups in sorted(asked):
        try:
            found = [
                *boto_client("ec2").describe_subnets(SubnetIds=list(subnets))["Subnets"],
                *boto_client("ec2").describe_security_groups(GroupIds=list(groups))["SecurityGroups"],
            ]
        except ClientError as error:
            if not code_of(error).startswith("Invalid"):
                raise
            yield mend(str(error), "platform.yaml:job.subnets and job.security_groups: those of a VPC in the region")
            continue
        vpcs = sorted({one["VpcId"] for one in found})
        if len(vpcs) == 1:
            yield ok(f"{', '.join((*subnets, *groups))} in {vpcs[0]}")
        else:
            yield mend(
                f"subnets and security groups are of several VPCs: {', '.join(vpcs)}",
                "platform.yaml:job.subnets and job.security_groups: of one VPC",
            )
