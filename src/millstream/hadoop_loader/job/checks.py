"""What a job must hold to be run: each setting's own limits, and what goes together. All problems, as keys go."""

from __future__ import annotations

import difflib
import importlib.util
import re
import zoneinfo
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from millstream.core.config.client_config import ClientConfig
from millstream.core.config.client_configs import CONSUMER_CONFIGS, JAVA_ONLY, WITHOUT_EFFECT
from millstream.core.config.definition import ConfigError
from millstream.hadoop_loader.filesystem.addresses import SCHEMES
from millstream.hadoop_loader.job.destination import metastore_addresses
from millstream.hadoop_loader.job.files import TIME_DIRECTIVES, TIME_PATTERNS
from millstream.hadoop_loader.job.offsets import check_offsets
from millstream.hadoop_loader.job.problem import Problem
from millstream.hadoop_loader.job.secret import Secret
from millstream.hadoop_loader.job.setting import Setting
from millstream.hadoop_loader.job.source import OWN_CONFIGS
from millstream.hadoop_loader.job.walking import Entry, walk

if TYPE_CHECKING:
    from millstream.hadoop_loader.job.destination import HiveSettings
    from millstream.hadoop_loader.job.load_job import LoadJob
    from millstream.hadoop_loader.job.records import ValueSettings

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")
_TOPIC: Final = re.compile(r"[A-Za-z0-9._-]{1,249}\Z")
_COLUMN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_TABLE_NAME: Final = re.compile(r"(?![._])(?:[A-Za-z0-9._-]|\\[1-9](?![0-9])){1,249}")


def problems_of(job: LoadJob) -> list[Problem]:
    """Return everything that keeps `job` from being run, sorted as the settings are."""
    problems = [problem for entry, value in walk(job) for problem in _limits(entry.key, value, entry.setting)]
    refused = {problem.key for problem in problems}
    for check in _CHECKS:
        problems += [problem for problem in check(job) if problem.key not in refused]
    told = {problem.key for problem in problems}
    for entry, value in walk(job):
        if entry.key not in told:
            problems += _check_text(entry, value)
    order = {entry.key: index for index, (entry, _) in enumerate(walk(job))}
    return sorted(problems, key=lambda problem: order.get(_known_prefix(problem.key, order), -1))


def shown(value: Any) -> str:
    """Return a value as a job file would have it, secrets hidden."""
    if isinstance(value, Secret):
        return repr(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + _CONTROL.sub(lambda found: rf"\u{ord(found[0]):04x}", value) + '"'
    if isinstance(value, frozenset | set):
        return shown(sorted(value))
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{name} = {shown(held)}' for name, held in value.items())} }}"
    return str(value)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean ...?" for a name that nobody knows, or nothing."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else ""


def _known_prefix(key: str, order: Mapping[str, int]) -> str:
    while key and key not in order:
        key = key.rpartition(".")[0]
    return key


def _limits(key: str, value: Any, setting: Setting) -> Iterator[Problem]:
    if value is None:
        return
    if setting.choices:
        for each in [value] if isinstance(value, str) else sorted(value):
            if each not in setting.choices:
                near = nearest(each, setting.choices)
                remedy = (f"{near} " if near else "") + f"one of {', '.join(setting.choices)}"
                if key == "partitioning.kind" and each in TIME_PATTERNS:
                    remedy = f'write kind = "time" and pattern = "{each}"'
                yield Problem(key, shown(value), f"there is no {shown(each)}", remedy)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        if setting.at_least is not None and value < setting.at_least:
            yield Problem(key, shown(value), "it is too small", f"give at least {setting.at_least:.15g}")
        if setting.at_most is not None and value > setting.at_most:
            yield Problem(key, shown(value), "it is too large", f"give at most {setting.at_most:.15g}")


def _check_text(entry: Entry, value: Any) -> Iterator[Problem]:
    """Texts that stand for nothing: empty ones, and such as no name, path or address has."""
    if value == "" and entry.field.default not in ("", MISSING):
        yield Problem(entry.key, '""', "it is empty", "write what it is, or leave it out")
    texts = [value] if isinstance(value, str) else value if isinstance(value, tuple | frozenset) else ()
    if entry.name not in {"schema", "cron"} and any(_CONTROL.search(text) for text in texts):
        yield Problem(entry.key, shown(value), "a control character is in it", "take it out")


def _check_name(job: LoadJob) -> Iterator[Problem]:
    if not _NAME.match(job.name):
        yield Problem(
            "name", shown(job.name), "it is no name", "use letters, digits, '.', '_' and '-', up to 100 of them"
        )


def _check_source(job: LoadJob) -> Iterator[Problem]:
    source = job.source
    yield from _check_bootstrap(source.bootstrap_servers)
    if not source.topics and source.topics_pattern is None:
        yield Problem("source.topics", "", "no topic is named", "give source.topics, or source.topics_pattern")
    for topic in source.topics:
        if not _TOPIC.match(topic) or topic in (".", ".."):
            what = f"{shown(topic)} is no topic's name"
            remedy = "name each topic in full; for patterns there is source.topics_pattern"
            yield Problem("source.topics", shown(source.topics), what, remedy)
    for name in ("topics_pattern", "exclude_pattern"):
        pattern = getattr(source, name)
        if pattern is None:
            continue
        yield from _check_regex(f"source.{name}", pattern, shown(pattern))
    if source.exclude_pattern is not None and source.topics_pattern is None:
        what, remedy = "there is nothing to exclude from", "give source.topics_pattern as well, or leave it out"
        yield Problem("source.exclude_pattern", shown(source.exclude_pattern), what, remedy)
    for name, time_ms in (("start", source.start), ("stop", source.stop)):
        if isinstance(time_ms, int) and time_ms < 0:
            yield Problem(f"source.{name}", str(time_ms), "it is before 1970", "give a later date-time")
    if isinstance(source.stop, int) and isinstance(source.start, int) and source.stop <= source.start:
        yield Problem("source.stop", str(source.stop), "it is not after source.start", "give a later date-time")
    yield from check_offsets(source)
    yield from _check_client_configs(source.client)


def _check_regex(key: str, pattern: str, value: str) -> Iterator[Problem]:
    import re2

    options = re2.Options()
    options.log_errors = False
    try:
        re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else str(error)
        remedy = "write a regular expression as RE2 reads them (no look-around, no back-references)"
        yield Problem(key, value, f"it is no pattern: {reason}", remedy)


def _check_table_names(job: LoadJob) -> Iterator[Problem]:
    key = "destination.table_names"
    for pattern, name in job.destination.table_names.items():
        value = f"{{ '{pattern}' = '{name}' }}"
        problems = list(_check_regex(key, pattern, value))
        yield from problems
        if not _TABLE_NAME.fullmatch(name):
            remedy = r"use letters, digits, '.', '_', '-' and \1 (no digit behind it), the first no '.' and no '_'"
            yield Problem(key, value, f"{shown(name)} is no name of a table", remedy)
        elif not problems:
            from millstream.core.client.membership.topic_watch import compiled

            groups = compiled(pattern).groups
            if lacking := [one for one in re.findall(r"\\([1-9])", name) if int(one) > groups]:
                remedy = r"put what \1 stands for in parentheses, as in 'prod[.](.+)' = '\1'"
                yield Problem(key, value, f"the pattern has no group {lacking[0]}", remedy)


def _check_bootstrap(servers: str) -> Iterator[Problem]:
    from millstream.core.net import parse_bootstrap

    key = "source.bootstrap_servers"
    if not servers.strip():
        yield Problem(key, shown(servers), "there is no address", "give at least one broker, as in kafka-1:9092")
        return
    try:
        parse_bootstrap(servers)
    except ValueError as error:
        yield Problem(key, shown(servers), str(error), "write host:port, with commas between brokers")


def _check_client_configs(client: Mapping[str, str | Secret]) -> Iterator[Problem]:
    for name, value in client.items():
        key = f"source.client.{name}"
        if name in OWN_CONFIGS:
            own = OWN_CONFIGS[name]
            remedy = f"say it by {own}" if own else "leave it out"
            yield Problem(key, shown(value), "the loader sets this itself", remedy)
            continue
        if name in JAVA_ONLY:
            yield Problem(key, shown(value), "it has no meaning outside a JVM", JAVA_ONLY[name])
            continue
        if name in WITHOUT_EFFECT:
            continue
        if name not in CONSUMER_CONFIGS:
            near = nearest(name, CONSUMER_CONFIGS)
            yield Problem(key, "", "Kafka's clients have no such config", near or "leave it out")
            continue
        if isinstance(value, Secret):
            continue
        if CONSUMER_CONFIGS[name].sensitive and name != "ssl.truststore.certificates":
            remedy = f'write {name} = {{ env = "NAME" }} or {{ file = "PATH" }}'
            yield Problem(key, "[hidden]", "a secret stands in the clear", remedy)
            continue
        try:
            CONSUMER_CONFIGS.parse(name, value)
        except ConfigError as error:
            yield Problem(key, shown(value), str(error), "see the client's documentation for what it takes")


def _check_security(job: LoadJob) -> Iterator[Problem]:
    """What SASL needs, before a broker says it: checked as a client would, with secrets stood in for."""
    client = job.source.client
    known = {name: value for name, value in client.items() if name in CONSUMER_CONFIGS}
    given = {name: "x" if isinstance(value, Secret) else value for name, value in known.items()}
    try:
        config = ClientConfig.load(CONSUMER_CONFIGS, {"bootstrap.servers": "127.0.0.1:9092", **given})
    except ConfigError:
        return  # told already, key by key
    protocol = config.string("security.protocol").upper()
    sasl = sorted(name for name in known if name.startswith("sasl."))
    if sasl and not protocol.startswith("SASL_"):
        remedy = "set source.client.security.protocol to SASL_SSL (or SASL_PLAINTEXT)"
        yield Problem(f"source.client.{sasl[0]}", "", f"security.protocol is {protocol}: it would not be used", remedy)
    if not protocol.startswith("SASL_"):
        return
    mechanism = config.string("sasl.mechanism")
    has_jaas = "sasl.jaas.config" in client
    lacking: tuple[str, ...] = ()
    if mechanism in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512") and not has_jaas:
        lacking = tuple(name for name in ("sasl.username", "sasl.password") if name not in client)
    elif mechanism == "GSSAPI" and not has_jaas and "sasl.kerberos.service.name" not in client:
        lacking = ("sasl.kerberos.service.name",)
    elif mechanism == "OAUTHBEARER":
        prefix = "sasl.oauthbearer.client.credentials.client"
        wanted = ("sasl.oauthbearer.token.endpoint.url", f"{prefix}.id", f"{prefix}.secret")
        lacking = tuple(name for name in wanted if name not in client)
    for name in lacking:
        yield Problem(f"source.client.{name}", "", f"sasl.mechanism {mechanism} needs it", "give it")


def _check_registry(job: LoadJob) -> Iterator[Problem]:
    registry = job.registry
    for key, part in (("value", job.value), ("key", job.key)):
        yield from _check_format(key, part, has_registry=registry is not None)
    if registry is None:
        return
    from millstream.schemas.client.config import RegistryConfig, with_urls

    if not registry.urls:
        yield Problem("registry.urls", "[]", "there is no address", "give at least one, as in http://registry:8081")
    for url in registry.urls:
        hidden = url.rpartition("@")[2]
        if "@" in url:
            remedy = "give registry.user, and registry.password as { env = ... } or { file = ... }"
            yield Problem("registry.urls", f'["...@{hidden}"]', "a user and password stand in the address", remedy)
            continue
        try:
            with_urls(url, RegistryConfig(urls=(url,)))
        except ValueError as error:
            yield Problem("registry.urls", shown(registry.urls), str(error), "write http://HOST:PORT")
    if registry.proxy is not None:
        yield from _check_proxy(registry.proxy)
    if (registry.user is None) != (registry.password is None):
        lacking, there = ("user", "password") if registry.user is None else ("password", "user")
        yield Problem(f"registry.{lacking}", "", f"registry.{there} is given without it", "give both or neither")
    if registry.token is not None and registry.user is not None:
        yield Problem("registry.token", shown(registry.token), "registry.user is given as well", "give one of the two")


def _check_proxy(proxy: str) -> Iterator[Problem]:
    try:
        parts = urlsplit(proxy)
        is_address = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address:
        shown_part = shown(proxy.rpartition("@")[2])
        yield Problem("registry.proxy", shown_part, "it is no address of an HTTP proxy", "write http://HOST:PORT")


def _check_format(key: str, part: ValueSettings, *, has_registry: bool) -> Iterator[Problem]:
    if part.format == "none":
        if key == "value":
            yield Problem("value.format", shown(part.format), "a table needs values", "use raw for bytes as they are")
        return
    if part.format == "raw" or (key == "key" and part.format == "json"):
        return
    if part.framing == "registry" and not has_registry:
        remedy = f'give [registry] urls, or {key}.framing = "none" with {key}.schema_file'
        yield Problem("registry.urls", "", f"{key}.framing is registry, and there is no registry", remedy)
    if part.framing == "registry" and key == "value":
        for name in ("schema_file", "schema"):
            if (given := getattr(part, name)) is not None:
                remedy = f'leave it out, or set {key}.framing = "none"'
                what = "with framing registry each record's own schema is used"
                yield Problem(f"{key}.{name}", shown(given), what, remedy)
        return
    if key == "key" and part.takes_registered_schemas:
        return
    wanted = ".proto" if part.format == "protobuf" else ".avsc"
    if part.schema_file is None:
        if part.format != "json" and part.schema is None:
            why = "keys are read by one schema" if key == "key" else f"{part.format} without framing needs it"
            yield Problem(f"{key}.schema_file", "", why, f"name a {wanted} file")
    elif not part.schema_file.endswith(wanted):
        yield Problem(f"{key}.schema_file", shown(part.schema_file), f"{part.format} is read by a {wanted}", "name one")
    if part.format == "protobuf" and part.message is None:
        yield Problem(f"{key}.message", "", "a .proto may hold several messages", "name the message of the records")


def _check_columns(job: LoadJob) -> Iterator[Problem]:
    """Columns that a job names itself: that files can have them, each once."""
    names = job.metadata_columns
    twice = next((name for index, name in enumerate(names) if name in names[:index]), None)
    if twice is not None:
        yield Problem("metadata_columns", shown(names), f"{twice} is there twice", "name each once")
    for key, part in (("value", job.value), ("key", job.key)):
        column = part.column
        if column is None:
            continue
        if not _COLUMN.fullmatch(column):
            remedy = "use letters, digits and underscores, and no digit first"
            yield Problem(f"{key}.column", shown(column), "it is no name of a column", remedy)
        elif column.casefold() in (f"_kafka_{name}" for name in names):
            yield Problem(f"{key}.column", shown(column), "metadata_columns has a column of that name", "take another")
        elif key == "value" and not _is_one_column(part):
            what = f"values of {part.format} with a schema have columns of their own: it would not be used"
            yield Problem("value.column", shown(column), what, "leave it out")


def _is_one_column(value: ValueSettings) -> bool:
    """Whether values are one column of bytes or text, without fields."""
    has_schema = value.framing == "registry" or value.schema is not None or value.schema_file is not None
    return value.format == "raw" or (value.format == "json" and not has_schema)


def _check_destination(job: LoadJob) -> Iterator[Problem]:
    destination = job.destination
    uri = destination.uri
    parts = urlsplit(uri)
    remedy = "write file:///DIR, hdfs://NAMENODE:8020/DIR or webhdfs://NAMENODE:9870/DIR"
    if not parts.scheme and uri.startswith("/"):
        parts = parts._replace(scheme="file")
    if parts.scheme not in SCHEMES:
        yield Problem("destination.uri", shown(uri), "it is no address of a table root", remedy)
    elif parts.scheme == "file" and (parts.netloc not in ("", "localhost") or not parts.path.startswith("/")):
        yield Problem("destination.uri", shown(uri), "a local directory has three slashes", "write file:///DIR")
    elif parts.scheme != "file" and not parts.netloc and destination.hadoop_conf_directory is None:
        remedy = "write the NameNode or the nameservice behind the slashes, or give destination.hadoop_conf_directory"
        yield Problem("destination.uri", shown(uri), "it names no NameNode", remedy)
    elif parts.query or parts.fragment:
        yield Problem("destination.uri", shown(uri), "it has a ? or #", "write %3F and %23 in names")
    elif parts.path in ("", "/"):
        yield Problem("destination.uri", shown(uri), "the whole file system is no table root", "name a directory")
    if not destination.formats:
        yield Problem("destination.formats", "[]", "nothing would be written", 'give "avro", "parquet" or both')
    kerberos = destination.kerberos
    if kerberos is not None and kerberos.keytab is None and kerberos.cache is None:
        remedy = "give keytab, or the cache of something that renews tickets"
        yield Problem("destination.kerberos.keytab", "", "a principal has to prove itself", remedy)
    hive = job.hive
    if hive is not None and hive.format not in destination.formats:
        yield Problem("hive.format", shown(hive.format), "the job does not write it", "take one of destination.formats")
    if hive is not None:
        yield from _check_metastore(hive)
    if job.iceberg is not None and "parquet" not in destination.formats:
        yield Problem("iceberg", "", "Iceberg tables are of Parquet files", 'add "parquet" to destination.formats')


def _check_metastore(hive: HiveSettings) -> Iterator[Problem]:
    if hive.metastore_uri is not None:
        try:
            metastore_addresses(hive.metastore_uri)
        except ValueError as error:
            remedy = "write thrift://HOST:9083, those of several with commas between them"
            yield Problem("hive.metastore_uri", shown(hive.metastore_uri), str(error), remedy)
    # Found out here and not behind a commit.
    if hive.kerberos_service is not None and importlib.util.find_spec("gssapi") is None:
        what, remedy = "Kerberos needs the package gssapi", "pip install 'millstream[kerberos]', or leave the key out"
        yield Problem("hive.kerberos_service", shown(hive.kerberos_service), what, remedy)


def _check_partitioning(job: LoadJob) -> Iterator[Problem]:
    partitioning = job.partitioning
    if partitioning.kind == "fields" and not partitioning.fields:
        yield Problem("partitioning.fields", "[]", "partitioning.kind is fields", "name at least one field")
    if partitioning.kind not in ("fields", "time"):
        if partitioning.fields:
            what = f"partitioning.kind is {partitioning.kind}: they would not be used"
            remedy = 'set kind = "fields" or "time", or leave them out'
            yield Problem("partitioning.fields", shown(partitioning.fields), what, remedy)
    else:
        yield from _check_partitioning_fields(job)
    yield from _check_pattern(partitioning.pattern)
    yield from _check_zone("partitioning.zone", partitioning.zone)


def _check_partitioning_fields(job: LoadJob) -> Iterator[Problem]:
    """Fields that name directories: that there are any, and that readers see the directories."""
    partitioning = job.partitioning
    value = job.value
    named = {"fields": partitioning.fields}
    if partitioning.kind == "time" and partitioning.timestamp != "record":
        named["timestamp"] = (partitioning.timestamp,)
    # A column of text or bytes has no fields; the key may.
    has_none = _is_one_column(value)
    key_column = (job.key.column or "key") if job.key.format != "none" else None
    for key, fields in named.items():
        if job.key.takes_registered_schemas and any(field.partition(".")[0] == key_column for field in fields):
            what = "the column of keys is known once some were read: no directory can be named by it"
            yield Problem(f"partitioning.{key}", shown(getattr(partitioning, key)), what, "give key.schema_file")
            return
        if has_none and any(field.partition(".")[0] != key_column for field in fields):
            said = "raw" if value.format == "raw" else "json, without a schema"
            remedy = "partition by record time" + ("" if value.format == "raw" else ", or give value.schema_file")
            given = shown(getattr(partitioning, key))
            yield Problem(f"partitioning.{key}", given, f"value.format is {said}: there are no fields", remedy)
            return
    given = shown(partitioning.fields)
    for field in partitioning.fields:
        if field.startswith((".", "_")):
            what = f"readers pass over directories that begin as {field}=... does"
            yield Problem("partitioning.fields", given, what, "name fields that begin with a letter")
            return
    names = [*partitioning.fields]
    if partitioning.kind == "time":
        names += [part.partition("=")[0] for part in partitioning.time_pattern.split("/") if "=" in part]
    twice = next(
        (name for index, name in enumerate(names) if name.casefold() in map(str.casefold, names[:index])), None
    )
    if twice is not None:
        yield Problem("partitioning.fields", given, f"two directories are named {twice}", "name each once")


def _check_pattern(pattern: str) -> Iterator[Problem]:
    if pattern in TIME_PATTERNS:
        return
    key, remedy = "partitioning.pattern", f"use {', '.join(TIME_PATTERNS)}, or %Y %m %d %H %M, as in dt=%Y-%m-%d"
    directives = re.findall(r"%(.?)", pattern)
    wrong = [f"%{each}" for each in directives if each not in TIME_DIRECTIVES or not each]
    if wrong:
        yield Problem(key, shown(pattern), f"there is no {wrong[0]}", remedy)
    elif not directives:
        near = nearest(pattern, TIME_PATTERNS)
        yield Problem(key, shown(pattern), "no time is in it", f"{near} {remedy}" if near else remedy)
    else:
        # A directory has to be one stretch of time: the day needs its month, the month its year.
        finest = max(TIME_DIRECTIVES.index(each) for each in directives)
        missing = [f"%{each}" for each in TIME_DIRECTIVES[:finest] if each not in directives]
        if missing:
            yield Problem(key, shown(pattern), f"it has %{TIME_DIRECTIVES[finest]} without {missing[0]}", remedy)
    segments = pattern.split("/")
    if any(not segment or segment.startswith((".", "_")) for segment in segments):
        what = "a directory of it is empty, or hidden from readers by its first character"
        yield Problem(key, shown(pattern), what, "start each directory with a letter, as in dt=%Y-%m-%d")
    if ":" in pattern:
        yield Problem(key, shown(pattern), "HDFS takes no colon in names", "write hours and minutes as in hour=%H%M")


def _check_zone(key: str, zone: str) -> Iterator[Problem]:
    try:
        zoneinfo.ZoneInfo(zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        near = nearest(zone, zoneinfo.available_timezones())
        yield Problem(key, shown(zone), "there is no such zone", near or "write it as in Europe/Berlin, or UTC")


def _check_schedule(job: LoadJob) -> Iterator[Problem]:
    schedule = job.schedule
    if schedule is None:
        return
    yield from _check_zone("schedule.zone", schedule.zone)
    if (schedule.cron is None) == (schedule.every_s is None):
        what = "there is neither cron nor every_s" if schedule.cron is None else "every_s is given as well"
        yield Problem("schedule.cron", shown(schedule.cron) if schedule.cron else "", what, "give one of the two")
    if schedule.cron is not None:
        import datetime

        try:
            from cronsim import CronSim, CronSimError
        except ModuleNotFoundError as error:
            what, remedy = f"the package {error.name} reads it, and is not there", "pip install 'millstream[hdfs]'"
            yield Problem("schedule.cron", shown(schedule.cron), what, remedy)
            return
        try:
            CronSim(schedule.cron, datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC))
        except CronSimError as error:
            remedy = 'give minute, hour, day, month, weekday, as in "*/15 * * * *"'
            yield Problem("schedule.cron", shown(schedule.cron), f"it is no cron expression ({error})", remedy)


def _check_retention(job: LoadJob) -> Iterator[Problem]:
    if job.destination.retention_s is not None and job.partitioning.kind != "time":
        what = f'directories of partitioning.kind = "{job.partitioning.kind}" have no time, so none of them expires'
        remedy = 'take it out, or give partitioning.kind = "time"'
        yield Problem("destination.retention_s", shown(job.destination.retention_s), what, remedy)


def _check_compaction(job: LoadJob) -> Iterator[Problem]:
    compaction = job.compaction
    if compaction.deduplicate_by:
        lacking = [name for name in ("partition", "offset") if name not in job.metadata_columns]
        if lacking:
            what = f"which row is the latest is told by metadata columns that are not there: {', '.join(lacking)}"
            remedy = "add them to metadata_columns"
            yield Problem("compaction.deduplicate_by", shown(compaction.deduplicate_by), what, remedy)


_LEVELS: Final = {
    "zstd": (1, 22),
    "zstandard": (1, 22),
    "gzip": (1, 9),
    "deflate": (1, 9),
    "brotli": (1, 11),
    "bzip2": (1, 9),
    "xz": (1, 9),
}


def _check_encoding(job: LoadJob) -> Iterator[Problem]:
    for key, codec, level in (
        ("encoding.parquet.level", job.encoding.parquet.codec, job.encoding.parquet.level),
        ("encoding.avro.level", job.encoding.avro.codec, job.encoding.avro.level),
    ):
        if level is None or codec not in _LEVELS:
            continue  # a codec without levels takes none
        low, high = _LEVELS[codec]
        if not low <= level <= high:
            yield Problem(key, str(level), f"{codec} has no such level", f"give {low} to {high}")
    rows, memory = job.encoding.parquet.row_group_bytes, job.worker_memory_bytes
    if rows > memory:
        what, remedy = f"a worker's memory is {memory} bytes", "make it smaller, or worker_memory_bytes larger"
        yield Problem("encoding.parquet.row_group_bytes", str(rows), what, remedy)


_CHECKS: Final[tuple[Callable[[LoadJob], Iterable[Problem]], ...]] = (
    _check_name,
    _check_source,
    _check_security,
    _check_registry,
    _check_columns,
    _check_destination,
    _check_table_names,
    _check_partitioning,
    _check_schedule,
    _check_retention,
    _check_compaction,
    _check_encoding,
)
