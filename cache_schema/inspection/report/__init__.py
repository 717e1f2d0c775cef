"""The page that `report` writes: one file of HTML that needs no network and no program of ours."""
