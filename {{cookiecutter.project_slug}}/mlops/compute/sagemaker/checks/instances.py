"""Checks of what jobs run on: image, machines, network."""

import re
from collections import defaultdict
from typing import Any

from ....config import load_platform
from ...spec import JobSpec
from ..image import image_of
from .project import Results, ask, boto_client, broken, ok, specs, unknown

# Source: https://docs.aws.amazon.com/AmazonECR/latest/userguide/Registries.html
REGISTRY = re.compile(
    r"(?P<account>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(?:\.cn)?/(?P<repository>[^:@]+)"
    r"(?::(?P<tag>[^@]+))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)


def images() -> Results:
    """Check that the images exist."""
    for uri, is_own in sorted({(image_of(spec)[0], bool(spec.image)) for spec in specs().values()}):
        yield _own_image(uri) if is_own else ok(f"the framework's: {uri}")


def _own_image(uri: str) -> Any:
    parts, region = REGISTRY.fullmatch(uri), load_platform().region
    if not parts:
        return unknown(f"{uri} is not in ECR, from where SageMaker pulls images", "make image puts one there")
    if parts["region"] != region:
        return broken(f"{uri} is in another region than the jobs, {region}", "make image")
    wanted = {"imageDigest": parts["digest"]} if parts["digest"] else {"imageTag": parts["tag"] or "latest"}
    place = {"registryId": parts["account"], "repositoryName": parts["repository"]}
    expected = "(RepositoryNotFoundException|ImageNotFoundException):"
    response, error = ask("ecr", "describe_images", expected, **place, imageIds=[wanted])
    if error:
        return broken(f"there is no image {uri}: {error.partition(':')[0]}", "make image")
    digest = response["imageDetails"][0]["imageDigest"]
    return ok(f"{uri}" if parts["digest"] else f"{uri}; the tag may move, so pin it: {uri}@{digest}")


def quotas() -> Results:
    """Check that the account's quotas allow the machines."""
    needed: dict[str, int] = defaultdict(int)
    for spec in specs().values():
        for name in quota_names(spec):
            needed[name] = max(needed[name], spec.instance_count)
    console = f"https://{load_platform().region}.console.aws.amazon.com/servicequotas/home/services/sagemaker/quotas"
    account: dict[str, Any] = {}
    # There are more than a thousand, a hundred in a page.
    for page in boto_client("service-quotas").get_paginator("list_service_quotas").paginate(ServiceCode="sagemaker"):
        account |= {quota["QuotaName"]: quota for quota in page["Quotas"] if quota["QuotaName"] in needed}
        if len(account) == len(needed):
            break
    for name, count in needed.items():
        quota = account.get(name)
        if not quota:
            yield unknown(f"AWS has no quota {name!r}", f"check that this machine type exists: {console}/")
        elif quota["Value"] < count:
            yield broken(
                f"{name}: {quota['Value']:g}, and {count} are needed",
                f"ask for more at {console}/{quota['QuotaCode']}, or another instance_type in meta.job",
            )
        else:
            yield ok(f"{name}: {quota['Value']:g}")


def quota_names(spec: JobSpec) -> list[str]:
    """Return AWS's names of the quotas that a job uses."""
    uses = [f"{'spot ' if spec.spot else ''}{spec.kind} job", *(["training warm pool"] if spec.keep_alive_s else [])]
    return [f"{spec.instance_type} for {use} usage" for use in uses]


def networks() -> Results:
    """Check that subnets and security groups exist, in one VPC."""
    used = {(tuple(spec.subnets), tuple(spec.security_groups)) for spec in specs().values() if spec.subnets}
    if not used:
        yield ok("SageMaker's own: no subnets are set")
    for subnets, groups in sorted(used):
        zones, zones_error = ask("ec2", "describe_subnets", "Invalid", SubnetIds=list(subnets))
        walls, walls_error = ask("ec2", "describe_security_groups", "Invalid", GroupIds=list(groups))
        if zones_error or walls_error:
            fix = "platform.yaml:job.subnets and job.security_groups: those of a VPC in the region"
            yield broken(zones_error or walls_error, fix)
            continue
        vpcs = sorted({part["VpcId"] for part in (*zones["Subnets"], *walls["SecurityGroups"])})
        if len(vpcs) == 1:
            yield ok(f"{', '.join((*subnets, *groups))} in {vpcs[0]}")
        else:
            yield broken(
                f"subnets and security groups are of several VPCs: {', '.join(vpcs)}",
                "platform.yaml:job.subnets and job.security_groups: of one VPC",
            )
