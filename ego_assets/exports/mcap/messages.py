"""Foxglove's messages (protobuf, well-known schemas) of what an episode has at a tick."""

from __future__ import annotations

from typing import Any

import numpy as np

from ego_assets.exports.video import Size
from ego_assets.operator import Intrinsics

WORLD, CAMERA = "world", "camera"
_BONES = tuple(
    bone
    for tip in range(4, 21, 4)
    for bone in ((0, tip - 3), *((n, n + 1) for n in range(tip - 3, tip)))
)
"""Pairs of joints in MANO order: wrist to palm, then up each finger."""
_COLORS = {"left": (0.0, 0.45, 0.70), "right": (0.84, 0.37, 0.0)}


def timestamp(time_ns: int) -> Any:
    from google.protobuf.timestamp_pb2 import Timestamp

    return Timestamp(seconds=time_ns // 10**9, nanos=time_ns % 10**9)


def picture(data: bytes, kind: str, time_ns: int) -> Any:
    """kind: `jpeg`, or the codec of a packet of video."""
    from foxglove_schemas_protobuf.CompressedImage_pb2 import CompressedImage
    from foxglove_schemas_protobuf.CompressedVideo_pb2 import CompressedVideo

    of = CompressedImage if kind == "jpeg" else CompressedVideo
    return of(timestamp=timestamp(time_ns), frame_id=CAMERA, data=data, format=kind)


def calibration(lens: Intrinsics, size: Size, time_ns: int) -> Any:
    from foxglove_schemas_protobuf.CameraCalibration_pb2 import CameraCalibration

    given = [*lens.distortion, 0.0, 0.0, 0.0, 0.0][:4]
    fisheye = lens.model == "OPENCV_FISHEYE"
    matrix = lens.matrix()
    return CameraCalibration(
        timestamp=timestamp(time_ns),
        frame_id=CAMERA,
        width=size[0],
        height=size[1],
        distortion_model="kannala_brandt" if fisheye else "plumb_bob",
        D=given if fisheye else [*given, 0.0],
        K=matrix.ravel().tolist(),
        R=np.eye(3).ravel().tolist(),
        P=np.c_[matrix, np.zeros(3)].ravel().tolist(),
    )


def transform(parent: str, child: str, pose: np.ndarray, time_ns: int) -> Any:
    """parent_from_child; pose: (7,) position in metres, quaternion xyzw."""
    from foxglove_schemas_protobuf.FrameTransform_pb2 import FrameTransform

    return FrameTransform(
        timestamp=timestamp(time_ns),
        parent_frame_id=parent,
        child_frame_id=child,
        translation=_vector(pose[:3]),
        rotation=_quaternion(pose[3:]),
    )


def pose_in_camera(pose: np.ndarray, time_ns: int) -> Any:
    from foxglove_schemas_protobuf.PoseInFrame_pb2 import PoseInFrame

    return PoseInFrame(timestamp=timestamp(time_ns), frame_id=CAMERA, pose=_pose(pose))


def joints_in_camera(joints: np.ndarray, xyzw: np.ndarray, time_ns: int) -> Any:
    """joints: (21, 3) in metres; xyzw: (4,) of the wrist, which stands for all."""
    from foxglove_schemas_protobuf.PosesInFrame_pb2 import PosesInFrame

    poses = [_pose(np.r_[joint, xyzw]) for joint in joints]
    return PosesInFrame(timestamp=timestamp(time_ns), frame_id=CAMERA, poses=poses)


def skeleton(side: str, joints: np.ndarray | None, time_ns: int) -> Any:
    """A hand as lines; joints: (21, 3) in metres in the camera, None if none is seen."""
    from foxglove_schemas_protobuf.Color_pb2 import Color
    from foxglove_schemas_protobuf.LinePrimitive_pb2 import LinePrimitive
    from foxglove_schemas_protobuf.Point3_pb2 import Point3
    from foxglove_schemas_protobuf.SceneEntity_pb2 import SceneEntity
    from foxglove_schemas_protobuf.SceneUpdate_pb2 import SceneUpdate

    entity = SceneEntity(timestamp=timestamp(time_ns), frame_id=CAMERA, id=f"{side} hand")
    if joints is not None:
        points = [Point3(x=x, y=y, z=z) for x, y, z in joints[np.array(_BONES).ravel()].tolist()]
        red, green, blue = _COLORS[side]
        lines = LinePrimitive(
            type=LinePrimitive.LINE_LIST,
            pose=_pose(np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0])),
            thickness=0.004,
            points=points,
            color=Color(r=red, g=green, b=blue, a=1.0),
        )
        entity.lines.append(lines)
    return SceneUpdate(entities=[entity])


def joint_states(names: tuple[str, ...], positions: np.ndarray, time_ns: int) -> Any:
    """positions: (J,) in radians."""
    from foxglove_schemas_protobuf.JointState_pb2 import JointState
    from foxglove_schemas_protobuf.JointStates_pb2 import JointStates

    joints = [
        JointState(name=name, position=position)
        for name, position in zip(names, positions.tolist(), strict=True)
    ]
    return JointStates(timestamp=timestamp(time_ns), joints=joints)


def words(text: str, time_ns: int) -> Any:
    from foxglove_schemas_protobuf.Log_pb2 import Log

    return Log(timestamp=timestamp(time_ns), level=Log.INFO, message=text, name="instruction")


def _vector(values: np.ndarray) -> Any:
    from foxglove_schemas_protobuf.Vector3_pb2 import Vector3

    return Vector3(**dict(zip("xyz", values.tolist(), strict=True)))


def _quaternion(xyzw: np.ndarray) -> Any:
    from foxglove_schemas_protobuf.Quaternion_pb2 import Quaternion

    return Quaternion(**dict(zip("xyzw", xyzw.tolist(), strict=True)))


def _pose(pose: np.ndarray) -> Any:
    from foxglove_schemas_protobuf.Pose_pb2 import Pose

    return Pose(position=_vector(pose[:3]), orientation=_quaternion(pose[3:]))
