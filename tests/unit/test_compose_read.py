"""What a user is told of a Compose file: the place, the reason, the warnings, and never a secret."""

import hashlib

import pytest

from control_plane.core.compose import ComposeFile, read_compose
from control_plane.core.errors import InvalidComposeFileError

WEB = "services:\n  web:\n    image: nginx\n"


def read(source: str | bytes, project: str = "shop") -> ComposeFile:
    return read_compose(source.encode() if isinstance(source, str) else source, project)


def refused(source: str | bytes, project: str = "shop") -> InvalidComposeFileError:
    with pytest.raises(InvalidComposeFileError) as error:
        read(source, project)
    return error.value


def test_a_file_that_passes_keeps_its_exact_bytes_and_their_fingerprint() -> None:
    source = "\ufeffservices:\r\n  web: {image: nginx}\r\n  db: {image: redis}\r\n".encode()
    file = read(source)
    assert file.source == source
    assert file.sha256 == hashlib.sha256(source).hexdigest()
    assert file.warnings == ()


def test_an_error_names_path_line_and_column_of_the_value() -> None:
    error = refused("services:\n  web:\n    image: nginx\n    ports:\n      - 80:80\n      - [443]\n")
    assert error.detail == ("services.web.ports[1]: must be a number, text or a mapping, not a list (line 6, column 9)")
    problem = error.fields[0]
    assert (problem.field, problem.line, problem.column) == ("services.web.ports[1]", 6, 9)


def test_the_place_of_a_value_that_an_anchor_brought_is_where_it_is_written() -> None:
    error = refused("x-env: &env\n  A: [1]\nservices:\n  web:\n    image: nginx\n    environment:\n      <<: *env\n")
    assert (error.fields[0].field, error.fields[0].line) == ("services.web.environment.A", 2)


def test_ten_problems_are_told_at_most_in_the_files_order() -> None:
    error = refused(WEB + "".join(f"    wrong{number}: 1\n" for number in range(15)))
    assert [problem.line for problem in error.fields] == list(range(4, 14))
    assert error.detail.endswith("and 14 more problems")


def test_a_large_file_is_told_the_same_problems_as_a_small_one() -> None:
    many = "".join(f"  s{number}:\n    image: nginx\n    ports: ['80:80']\n" for number in range(400))
    error = refused(f"services:\n{many}  web:\n    image: nginx\n    environment:\n      A: [1]\n    imgae: x\n")
    assert [problem.field for problem in error.fields] == ["services.web.environment.A", "services.web.imgae"]
    assert "did you mean `image`?" in error.fields[1].reason


@pytest.mark.parametrize(
    "source",
    [
        f"{WEB}    environment:\n      PASSWORD: [hunter2]\n",
        f"{WEB}    environment: [[hunter2]]\n",
        f"{WEB}    healthcheck: {{test: x, interval: hunter2}}\n",
        f"{WEB}    ports: [hunter2]\n",
        f"{WEB}    cgroup: hunter2\n",
        f"{WEB}    pull_policy: hunter2\n",
        f"{WEB}    hostname: '${{hunter2 x}}'\n",
        f"{WEB}    privileged: hunter2\n",
        "name: hunter2\n" + WEB,
    ],
)
def test_an_error_never_shows_a_value(source: str) -> None:
    error = refused(source)
    assert "hunter2" not in error.detail + repr(error.fields)


def test_keys_are_shown_on_one_short_line() -> None:
    error = refused(f'{WEB}    "bad\\n\\e[31m{"k" * 200}": 1\n')
    assert "\n" not in error.detail
    assert "\x1b" not in error.detail
    assert len(error.detail) < 250


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "latin-1"])
def test_another_encoding_than_utf8_is_refused_saying_so(encoding: str) -> None:
    source = f"\ufeff{WEB}" if encoding == "utf-16-le" else f"{WEB}# höhe\n"
    assert "save it as UTF-8" in refused(source.encode(encoding)).detail


@pytest.mark.parametrize("name", ["shop", "Shop", "_shop", "${COMPOSE_PROJECT_NAME}", "${X:-shop}", "${X}", '""'])
def test_a_name_that_compose_folds_to_the_projects_own_is_fine(name: str) -> None:
    assert read(f"name: {name}\n{WEB}", "Shop").source


@pytest.mark.promise("traversal")
@pytest.mark.parametrize("name", ["other", "shop2", "${X:-other}", "../shop2"])
def test_a_name_of_another_project_is_refused_saying_what_to_write(name: str) -> None:
    error = refused(f"name: {name}\n{WEB}", "Shop")
    assert error.detail == "name: must be the project's own name: write `shop`, or remove `name` (line 1, column 1)"


WARNINGS = {
    "services.web.build": "    build: .\n",
    "services.web.env_file": "    env_file: web.env\n",
    "services.web.env_file[1]": "    env_file: [/etc/web.env, {path: web.env}]\n",
    "services.web.label_file": "    label_file: ./labels\n",
    "services.web.extends.file": "    extends: {file: base.yml, service: web}\n",
    "services.web.volumes[0]": "    volumes: ['./html:/html']\n",
    "services.web.volumes[1]": "    volumes: [/a, {type: bind, source: html, target: /html}]\n",
    "services.web.hostname": "    hostname: ${NAME}\n",
    "services.web.command[1]": "    command: [echo, $NAME]\n",
    "secrets.key.file": "secrets: {key: {file: key.pem}}\n",
    "configs.site.file": "configs: {site: {file: ./site.conf}}\n",
    "include[0]": "include: [other.yml]\n",
    "version": "version: '3'\n",
}


@pytest.mark.parametrize(("path", "lines"), WARNINGS.items(), ids=WARNINGS.keys())
def test_what_cannot_work_from_a_lone_file_is_a_warning_that_names_its_path(path: str, lines: str) -> None:
    warnings = read(WEB + lines).warnings
    assert len(warnings) == 1
    assert warnings[0].startswith(f"{path}: ")
    assert warnings[0].endswith(".")


@pytest.mark.parametrize(
    "lines",
    [
        "    build: https://github.com/example/app.git#main\n",
        "    build: {context: 'git@github.com:example/app.git'}\n",
        "    build: {dockerfile_inline: 'FROM nginx'}\n",
        "    env_file: [/etc/web.env, {path: web.env, required: false}]\n",
        "    volumes: ['data:/data', '/srv:/srv', '~/x:/x', '${DIR:-.}/y:/y']\nvolumes: {data: }\n",
        "    hostname: ${NAME:-web}${OTHER-}${MORE:+x}$$NAME\n",
        "    hostname: ${COMPOSE_PROJECT_NAME}\n",
        "configs: {site: {external: true}}\nsecrets: {key: {file: /etc/key}}\n",
    ],
)
def test_what_works_from_a_lone_file_is_no_warning(lines: str) -> None:
    assert read(WEB + lines).warnings == ()


def test_an_inline_config_is_a_warning_that_a_changed_text_goes_unnoticed() -> None:
    (warning,) = read(f"{WEB}configs: {{page: {{content: text}}, other: {{file: /etc/other}}}}\n").warnings
    assert warning == (
        "configs.page.content: Compose keeps a running container when only this text changes; rename the config with "
        "each change (`page_2`), or stop the project first."
    )


def test_a_required_variable_is_a_warning_that_compose_will_refuse() -> None:
    (warning,) = read(f"{WEB}    hostname: ${{NAME:?set it}}\n").warnings
    assert warning == (
        "services.web.hostname: `NAME` must be set in the agent's environment, or Compose will refuse the file."
    )


def test_a_variable_is_warned_of_once_and_warnings_are_bounded() -> None:
    twice = read(f"{WEB}    hostname: $A\n    domainname: ${{A}}\n").warnings
    assert len(twice) == 1
    many = ", ".join(f"'$V{number}'" for number in range(80))
    warnings = read(f"{WEB}    command: [{many}]\n").warnings
    assert len(warnings) == len(set(warnings)) == 50
    assert warnings[0].startswith("services.web.command[0]: `V0` ")


@pytest.mark.parametrize(
    "lines",
    [
        "    ports: ['${PORT}:80', '${A}', '${B}']\n",
        "    deploy: {replicas: '${N:-2}'}\n",
        "    mem_limit: ${MEM}\n",
        "    cgroup: ${C}\n",
        "    gpus: ${G}\n",
        "    depends_on: {db: {condition: '${C}', required: '${R}'}}\n  db: {image: redis}\n",
        "    networks: ['${NET}']\n",
        "    healthcheck: {test: x, interval: '${I}', retries: '${R}'}\n",
        "    container_name: ${C}\n",
    ],
)
def test_a_value_that_only_the_host_knows_is_never_refused(lines: str) -> None:
    assert read(WEB + lines).source == (WEB + lines).encode()


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("services", "services: ${X}\n"),
        ("services.web", "services: {web: '${X}'}\n"),
        ("services.web.ports", f"{WEB}    ports: ${{X}}\n"),
        ("services.web.networks", f"{WEB}    networks: ${{X}}\n"),
        ("services.web.depends_on", f"{WEB}    depends_on: ${{X}}\n"),
        ("services.web.deploy", f"{WEB}    deploy: ${{X}}\n"),
        ("volumes", f"{WEB}volumes: ${{X}}\n"),
        ("include", f"{WEB}include: ${{X}}\n"),
    ],
)
def test_a_variable_cannot_stand_for_a_mapping_or_a_list(path: str, source: str) -> None:
    assert refused(source).fields[0].field == path


def test_what_an_included_file_may_define_is_not_missed_here() -> None:
    source = f"include: [/srv/base.yml]\n{WEB}    networks: [back]\n    depends_on: [db]\n"
    assert read(source).warnings == ()
