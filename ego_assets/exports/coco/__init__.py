"""Writes pictures, masks and keypoints as COCO does (`writer.write_coco`)."""
