"""`fastddpm detect`: each image's score and map, and a threshold from normal images."""
