// @ts-check
/** The next step for each kind of problem in a data set: the table of docs/datasets.md. */

/** @type {Record<string, string>} */
export const NEXT_STEPS = {
  boxes_missing: "No box can be used. Multiply fractions by the image size; export boxes instead of masks (iscrowd).",
  box_empty: "Correct or remove the box: its width and height must be above 0.",
  box_outside: "Correct or remove the box: four finite numbers in pixels, within the image.",
  box_invalid: "Correct or remove the box: four finite numbers in pixels, within the image.",
  annotation_invalid: "Give each annotation the fields id, image_id, category_id and bbox.",
  annotation_id_duplicate: "Give each annotation an id of its own.",
  category_unknown: "List the category in categories, or correct category_id.",
  category_duplicate: "List each category once.",
  class_mismatch: "Give both splits the same categories in the same order.",
  image_unknown: "Remove the box, or add the image with its image_id.",
  image_invalid: "Give each image one entry with id, file_name, width and height.",
  image_id_duplicate: "Give each image an id of its own.",
  image_listed_twice: "List each image once.",
  image_missing: "Add the file below the images folder, or correct file_name.",
  image_outside_folder: "Move the file below the images folder, or correct file_name.",
  image_size_differs: "Annotate the image as it is, after its EXIF orientation.",
  image_unreadable: "Save the image as JPEG, PNG, BMP or WebP.",
  image_too_large: "Save the image with at most 50 million pixels (WebP: 12.5 million).",
};
