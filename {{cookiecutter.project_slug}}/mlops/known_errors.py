"""The errors of other tools that are known, and what to do about each: of AWS, DVC, Git, MLflow, networks and disks.

`explain` looks them up. Where several fit, the first is meant: what is specific stands before what is general.
"""

from typing import NamedTuple

from .errors import ProjectError, UnavailableError

AGAIN = "then the same command"
CREDENTIALS = "aws configure, or AWS_PROFILE=<a profile of ~/.aws/config>"
WHO = "aws sts get-caller-identity tells who you are"
STORAGE = "dvc remote modify --local storage url s3://<bucket>/<folder>; for everybody: without --local"
REGION = "dvc remote modify --local storage region"
TRACKING = "platform.yaml:tracking_uri"


class Known(NamedTuple):
    """An error that is known.

    Args:
        pattern: A regular expression. It is searched in the names of an error's classes (`botocore.ClientError`), and
            in its message, which begins a line and starts with AWS's code, or the name of a system error (`EACCES`).
        problem: Groups of the pattern, `message`, and what else `explain` knows of the error may stand in braces.
        fix: Likewise.
        error: The class to raise.
    """

    pattern: str
    problem: str
    fix: str
    error: type[ProjectError] = ProjectError


KNOWN = (
    # Disks and files
    Known(
        r"^(ENOSPC|EDQUOT|EFBIG)\b|No space left on device|[Dd]isk quota exceeded|database or disk is full",
        "the disk is full{of_file}",
        "free some space (`dvc gc -w` removes unused cache), then run again",
    ),
    Known(r"^(EMFILE|ENFILE)\b|Too many open files", "too many files are open", f"ulimit -n 8192, {AGAIN}"),
    Known(
        r"^EROFS\b|Read-only file system",
        "the file system is read-only{of_file}",
        f"mount it writable, or clone the project to another folder; {AGAIN}",
    ),
    # AWS: who one is
    Known(
        r"botocore\.(\w*SSO\w*|TokenRetrievalError|NoAuthTokenError)|SSO Token: Token for|SSO session associated with"
        r"|^(InvalidGrant|Unauthorized)Exception \w*(CreateToken|RoleCredentials)",
        "the AWS SSO session has ended",
        f"aws sso login{{of_session}}, {AGAIN}",
    ),
    Known(r"botocore\.LoginError|using 'aws login'", "the AWS login has ended", f"aws login{{of_profile}}, {AGAIN}"),
    Known(
        r"^ForbiddenException GetRoleCredentials",
        "AWS SSO does not let you take the role of the profile{of_profile}",
        "aws configure sso, and choose an account and a role that you have",
    ),
    Known(
        r"^(ExpiredToken|RequestExpired|TokenRefreshRequired)|ExpiredToken|token included in the request is expired",
        "the AWS credentials have expired",
        f"log in again (aws sso login{{of_profile}}), {AGAIN}; a running job goes on meanwhile",
    ),
    Known(
        r"botocore\.ProfileNotFound|config profile \((?P<name>.*?)\) could not be found",
        "there is no AWS profile {profile}{name}",
        "AWS_PROFILE=<one that `aws configure list-profiles` lists>, or aws configure --profile {profile}{name}",
    ),
    Known(r"botocore\.NoCredentialsError|Unable to locate credentials", "there are no AWS credentials", CREDENTIALS),
    Known(
        r"botocore\.PartialCredentialsError",
        "the AWS credentials of {provider} lack {cred_var}",
        "aws configure{of_profile}; of environment variables: set both AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    ),
    Known(
        r"botocore\.(CredentialRetrieval|InfiniteLoopConfig|InvalidConfig|RefreshWithMFA\w*)Error",
        "there are no AWS credentials: {message}",
        f"correct the profile{{of_profile}} in ~/.aws/config, {AGAIN}",
    ),
    Known(r"botocore\.Config(Parse|NotFound)\w*", "AWS's configuration {path} can't be read", "correct {path}"),
    Known(
        r"RequestTimeTooSkewed|RequestInTheFuture|Signature (expired|not yet current)",
        "this machine's clock is wrong: AWS refuses its signatures",
        f"set the clock (sudo timedatectl set-ntp true), {AGAIN}",
    ),
    Known(
        r"^(InvalidAccessKeyId|InvalidClientTokenId|UnrecognizedClientException|InvalidToken)\b",
        "AWS does not know the access key",
        f"{CREDENTIALS}, {AGAIN}; {WHO}",
    ),
    Known(
        r"^(SignatureDoesNotMatch|InvalidSignatureException|IncompleteSignature)\b",
        "AWS refuses the signature: the secret access key is not that of the access key",
        f"{CREDENTIALS}, {AGAIN}; {WHO}",
    ),
    # AWS: where things are
    Known(
        r"^(PermanentRedirect|AuthorizationHeaderMalformed|IllegalLocationConstraintException|301)\b"
        r"(.*expecting '(?P<region>[\w-]+)')?",
        "the bucket {bucket} is in another region than .dvc/config or platform.yaml says: {region}",
        f"{REGION} {{region}}; for everybody: without --local; that of jobs is platform.yaml:region",
    ),
    Known(
        r"^(NoSuchBucket\b|404 HeadBucket)|specified bucket does not exist",
        "there is no bucket {bucket}",
        f"aws s3 mb s3://{{bucket}}, or {STORAGE}",
    ),
    Known(
        r"[Ii]nvalid ?[Bb]ucket ?[Nn]ame(.*?\"(?P<name>[^\"]*)\")?",
        "{name!r} can't be the name of a bucket",
        f"{STORAGE}; of jobs: platform.yaml:jobs_uri",
    ),
    Known(
        r"^(NoSuchKey|404)\b",
        "S3 lacks an object that is needed: {message}",
        "dvc push, in a clone that has the data",
    ),
    Known(r"botocore\.NoRegionError", "no AWS region is set", "platform.yaml:region: such as us-east-1"),
    Known(
        r"botocore\.(InvalidRegion|UnknownRegion|UnknownEndpoint)Error",
        "AWS has no region {region_name}",
        f"platform.yaml:region: such as us-east-1; of the data: {REGION} us-east-1",
    ),
    # AWS: what it refuses
    Known(
        r"^(AccessDenied|AllAccessDisabled|UnauthorizedOperation|NotAuthorized|403)\w*\b|^(Access Denied|Forbidden)$",
        "AWS refuses{operation}: {message}",
        f"{WHO}; ask who administers the account to allow that",
    ),
    Known(
        r"botocore\.ClientError.*\n400\b",
        "AWS refuses{operation}: the credentials have expired, or the bucket is in another region",
        f"{WHO}, or that you have to log in again; the region: {REGION} <the bucket's>",
    ),
    Known(
        r"^(Throttl\w*|RequestLimitExceeded|TooManyRequests\w*|SlowDown|RequestTimeout|InternalError|InternalFailure"
        r"|ServiceUnavailable|5\d\d)\b|\(HTTP 5\d\d\)|reduce your request rate",
        "AWS is too busy: {message}",
        "the same command, later",
        UnavailableError,
    ),
    Known(
        r"botocore\.ParamValidationError",
        "AWS would refuse the request: {message}",
        "correct that in platform.yaml, or in meta.job of dvc.yaml",
    ),
    # Git, when DVC asks it; `tracking/git.py` knows what Git's own commands say
    Known(
        r"dubious ownership(.*'(?P<folder>.*)')?|repository path '(?P<path>.*)' is not owned",
        "Git does not trust {folder}: another user owns it",
        f"git config --global --add safe.directory {{folder}}, {AGAIN}",
    ),
    Known(
        r"[Nn]ot a git repository|is not a git repo",
        "{cwd} is in no Git repository",
        "run from the project's root; a new project: git init && git add . && git commit -m 'Start'",
    ),
    Known(
        r"(dvc|scmrepo)\.(GitAuth|Auth|Clone)Error|is not a valid Git remote",
        "the Git repository can't be had: {message}",
        f"check its address and the network connection; log in to it (`git fetch` asks for what it needs); {AGAIN}",
    ),
    # Networks; botocore's classes are requests' too
    Known(
        r"botocore\.SSLError",
        "this machine does not trust the certificate of {endpoint_url}",
        f"export AWS_CA_BUNDLE=<the file with your organization's certificate>, {AGAIN}",
    ),
    Known(
        r"botocore\.ProxyConnectionError",
        "the proxy {proxy_url} does not answer",
        f"correct HTTPS_PROXY, or unset it, {AGAIN}",
        UnavailableError,
    ),
    Known(
        r"botocore\.(HTTPClientError|ConnectionError|MetadataRetrievalError|ResponseParserError)",
        "AWS can't be reached: {message}",
        f"check the network connection, and the region, {AGAIN}",
        UnavailableError,
    ),
    Known(
        r"CERTIFICATE_VERIFY_FAILED|ssl\.SSLCertVerificationError|requests\.SSLError",
        "this machine does not trust the certificate of {host}",
        f"export REQUESTS_CA_BUNDLE=<the file with your organization's certificate>, {AGAIN}",
    ),
    # Databases
    Known(
        r"(?s)(sqlite3|sqlalchemy|mlflow)\..*database (table )?is locked",
        "the database is in use by another process",
        f"end it (an `mlflow ui`, or a program that shows the database), {AGAIN}",
        UnavailableError,
    ),
    Known(
        r"(?s)(sqlite3|sqlalchemy|mlflow)\..*(readonly database|unable to open database file)",
        "the database can't be written",
        f"chmod u+rw mlflow.db* . in the project's root (`ls -la` says whose they are), {AGAIN}",
    ),
    Known(
        r"(?s)(sqlite3|sqlalchemy|mlflow)\..*(image is malformed|is not a database)",
        "the database is damaged",
        "mv mlflow.db mlflow.db.damaged && python -m mlops setup && python -m mlops mirror repair",
    ),
    # MLflow and servers
    Known(
        r"(?s)(mlflow|requests)\..*(\b401\b|UNAUTHENTICATED)",
        "MLflow does not know you: {message}",
        f"set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, {AGAIN}",
    ),
    Known(
        r"(?s)(mlflow|requests)\..*(\b403\b|PERMISSION_DENIED)",
        "MLflow refuses: {message}",
        f"ask who administers MLflow to allow that, {AGAIN}",
    ),
    Known(
        r"NameResolution|gaierror|Name or service not known|[Nn]ame resolution|nodename nor serv|getaddrinfo failed",
        "the server's name can't be resolved: {host}",
        f"check the network connection, and the name ({TRACKING}, .dvc/config), {AGAIN}",
        UnavailableError,
    ),
    Known(
        r"^ECONNREFUSED\b|Connection refused|actively refused",
        "no server answers at {host}",
        f"start it, or correct its address ({TRACKING}, .dvc/config), {AGAIN}",
        UnavailableError,
    ),
    Known(
        r"(builtins|requests|urllib3|fsspec|botocore|aiohttp)\.\w*(Timeout|ConnectionReset|ProtocolError|"
        r"ConnectionAborted|RemoteDisconnected)|(?s:mlflow\..*)(timed out|Connection aborted|error responses)",
        "the server at {host} does not answer: {message}",
        f"check that it is up, and the network connection, {AGAIN}",
        UnavailableError,
    ),
    # DVC
    Known(r"dvc\.NotDvcRepoError", "{cwd} is in no DVC repository", "run from the project's root, where dvc.yaml is"),
    Known(
        r"dvc\.LockError(?s:.*)\(PID (?P<pid>\d+)\): (?P<process>[^\n]*)",
        "files of the project are in use by another DVC command: {process}",
        f"wait for it to end, or kill {{pid}}; {AGAIN}",
    ),
    Known(
        r"dvc\.LockError|filelock\.Timeout|zc\.LockError",
        "another DVC command works in this repository",
        f"wait for it to end (`ps ax | grep dvc` shows it), {AGAIN}",
    ),
    Known(r"dvc\.RWLockFile\w+Error", "DVC's file .dvc/tmp/rwlock is damaged", f"rm .dvc/tmp/rwlock, {AGAIN}"),
    Known(
        r"dvc\.(NoRemote|RemoteNotFound)Error",
        "DVC finds no remote: {message}",
        "python -m mlops setup (a local folder), or: dvc remote add -d -f storage s3://<a bucket>/<a folder>",
    ),
    Known(
        r"dvc(_objects)?\.ConfigError|configobj\.",
        "DVC can't read its configuration: {message}",
        f"correct .dvc/config or .dvc/config.local, {AGAIN}",
    ),
    Known(
        r"dvc_objects\.RemoteMissingDepsError|requires these missing dependencies",
        "this environment lacks what the DVC remote needs: {message}",
        f"python -m pip install -r requirements.lock, {AGAIN}",
    ),
    Known(
        r"dvc\.(CheckoutError|FileMissingError|CollectCacheError)|neither locally nor on remote",
        "data of this commit are not in this clone: {message}",
        "dvc pull; if the remote lacks them too: dvc push, in a clone that has them",
    ),
    Known(
        r"dvc_data\.DiskError|diskcache\.",
        "DVC's own cache of what it knows is damaged: {message}",
        f"rm -r .dvc/tmp/*_cache; elsewhere, the folder that it names; {AGAIN}",
    ),
    Known(
        r"dvc\.(ParseError|YAMLValidationError)|ruamel\.YAMLError|tomllib\.|json\.JSONDecodeError|"
        r"builtins\.UnicodeDecodeError",
        "{file} can't be read: {message}",
        f"correct {{file}}, or restore it: git checkout {{file}}; {AGAIN}",
    ),
    Known(
        r"dvc\.(ResolveError|EntryNotFound|ContextError|Output\w+|CyclicGraphError|StageNotFound|StagePath\w*Error)",
        "DVC refuses dvc.yaml: {message}",
        f"correct dvc.yaml, {AGAIN}",
    ),
    Known(
        r"builtins\.FileNotFoundError(?s:.*)\nfile: (?P<file>.*)",
        "{file} is missing",
        "dvc repro, if a stage makes it; else restore it: git checkout {file}",
    ),
    Known(
        r"builtins\.PermissionError.*\n(EACCES|EPERM)",
        "the system refuses access{of_file}",
        f"ls -ld {{file}} tells whose it is: sudo chown -R $(id -un) {{file}}, or chmod u+rw {{file}}; {AGAIN}",
    ),
    # What else these tools say to people
    Known(r"(botocore|boto3|s3transfer)\.", "AWS refuses{operation}: {code}{message}", f"correct that, {AGAIN}"),
    Known(r"(dvc|scmrepo)\.", "DVC can't do that: {message}", f"correct that (dvc doctor shows its settings), {AGAIN}"),
    Known(r"mlflow\.MlflowException", "MLflow refuses: {message}", f"correct that, or {TRACKING}, {AGAIN}"),
    Known(
        r"sqlalchemy\.(Operational|Database)Error",
        "the database of MLflow fails: {message}",
        f"correct that, or {TRACKING}, {AGAIN}",
    ),
    Known(r"requests\.|urllib3\.", "the server at {host} fails: {message}", f"check that it is up, {AGAIN}"),
)
